//! The typed calls of a plugin, each one line for its callers.

use std::sync::Arc;

use super::bindings::exports::{
    lifecycle::Event,
    reactor::{Datagram, Reaction},
};
use super::bindings::types::{
    Answer, Head, Manifest, PluginStatus, Request, UpstreamError, Verdict,
};
use super::context::Peer;
use super::error::CallError;
use super::instance::Live;
use super::pool::{CallFuture, Sandbox};
use super::runtimes::Class;

impl Sandbox {
    /// What the plugin is. The caller has given this sandbox nothing.
    pub async fn describe(self: &Arc<Self>) -> Result<Manifest, CallError> {
        self.call(Class::Heavy, None, |live| {
            Box::pin(live.lifecycle.call_describe(&mut live.store))
        })
        .await
    }

    /// The plugin's health and what Foreman shall see.
    pub async fn status(self: &Arc<Self>) -> Result<PluginStatus, CallError> {
        self.call(Class::Heavy, None, |live| {
            Box::pin(live.lifecycle.call_status(&mut live.store))
        })
        .await
    }

    /// Tells a `single` plugin what happened; answers the milliseconds to its next timer.
    pub async fn wake(self: &Arc<Self>, events: Vec<Event>) -> Result<Option<u32>, CallError> {
        self.call(Class::Control, None, move |live| {
            Box::pin(async move { live.lifecycle.call_wake(&mut live.store, &events).await })
        })
        .await
    }

    /// Answers a request that matched one of the plugin's routes.
    pub async fn handle(
        self: &Arc<Self>,
        class: Class,
        peer: Arc<Peer>,
        request: Request,
    ) -> Result<Answer, CallError> {
        if !self.program().is_feature() {
            return Err(CallError::Missing("foreman:proxy/feature".into()));
        }
        let transfer = self.limits().reply_body;
        self.call(class, Some(peer), move |live| {
            handle(live, request, transfer)
        })
        .await
    }

    /// Asks what becomes of an upstream's answer.
    pub async fn on_upstream(
        self: &Arc<Self>,
        class: Class,
        peer: Arc<Peer>,
        keep: Vec<u8>,
        got: Result<Head, UpstreamError>,
    ) -> Result<Verdict, CallError> {
        if !self.program().is_feature() {
            return Err(CallError::Missing("foreman:proxy/feature".into()));
        }
        let limit = self.limits().reply_body;
        // Foreman has done its work already.
        self.call_again(class, Some(peer), move |live| {
            Box::pin(async move {
                let Live { store, feature, .. } = live;
                let feature = feature
                    .as_ref()
                    .ok_or_else(|| wasmtime::Error::msg("no `feature` export"))?;
                let verdict = feature.call_on_upstream(store, &keep, got.as_ref()).await?;
                if let Verdict::Replace(reply) = &verdict {
                    bounded(reply.body.len(), limit)?;
                }
                Ok(verdict)
            })
        })
        .await
    }

    /// Feeds a service its datagrams and answers what it wants done.
    pub async fn datagrams(
        self: &Arc<Self>,
        batch: Vec<Datagram>,
    ) -> Result<Vec<Reaction>, CallError> {
        if !self.program().is_service() {
            return Err(CallError::Missing("foreman:proxy/reactor".into()));
        }
        // Whoever sends packets is no more than a host.
        self.call(Class::Hosts, None, move |live| {
            Box::pin(async move {
                let Live { store, reactor, .. } = live;
                let reactor = reactor
                    .as_ref()
                    .ok_or_else(|| wasmtime::Error::msg("no `reactor` export"))?;
                reactor.call_datagrams(store, &batch).await
            })
        })
        .await
    }
}

/// The transfer of one call has room for the largest of several bodies; each has its own limit besides.
fn bounded(length: usize, limit: u64) -> wasmtime::Result<()> {
    if length as u64 > limit {
        return Err(wasmtime::Error::msg(format!(
            "limits.reply-body = {limit} bytes, the reply has {length}"
        )));
    }
    Ok(())
}

fn handle(live: &mut Live, request: Request, transfer: u64) -> CallFuture<'_, Answer> {
    Box::pin(async move {
        if live.feature.is_none() && live.http.is_some() {
            return super::http_guest::handle(live, request, transfer).await;
        }
        let Live { store, feature, .. } = live;
        let feature = feature
            .as_ref()
            .ok_or_else(|| wasmtime::Error::msg("no `feature` export"))?;
        let answer = feature.call_handle(store, &request).await?;
        if let Answer::Reply(reply) = &answer {
            bounded(reply.body.len(), transfer)?;
        }
        Ok(answer)
    })
}
