//! The values metrics' labels can have. Each is an enum, so that no text from outside ever becomes one.

/// Declares an enum whose names are label values.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// The label's value.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl prometheus_client::encoding::EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                self.as_str().encode(encoder)
            }
        }
    };
}

labels! {
    /// The method of a request; what is not listed here is `OTHER`.
    Method {
        /// GET
        Get = "GET",
        /// HEAD
        Head = "HEAD",
        /// POST
        Post = "POST",
        /// PUT
        Put = "PUT",
        /// DELETE
        Delete = "DELETE",
        /// Any other.
        Other = "OTHER",
    }
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Self {
        match method.as_str() {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

labels! {
    /// The first digit of an answer's status.
    Status {
        /// 200 to 299
        Success = "2xx",
        /// 300 to 399
        Redirection = "3xx",
        /// 400 to 499
        ClientError = "4xx",
        /// 500 and above
        ServerError = "5xx",
    }
}

impl From<http::StatusCode> for Status {
    fn from(status: http::StatusCode) -> Self {
        match status.as_u16() {
            ..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

labels! {
    /// Why a request was turned away before its plugin ran.
    Rejection {
        /// As many calls as allowed ran, and the queue was full.
        QueueFull = "queue-full",
        /// It waited in the queue for too long.
        QueueTime = "queue-time",
        /// The plugin was starting.
        NotReady = "not-ready",
        /// The pool had no slot left.
        NoSlot = "no-slot",
        /// Its client asked more often than one may.
        ClientRate = "client-rate",
        /// The listener had no memory left for its body.
        HeldBodies = "held-bodies",
    }
}

labels! {
    /// How a call into a component ended badly.
    Trap {
        /// The component trapped or panicked.
        Trap = "trap",
        /// Its wall time ran out.
        Deadline = "deadline",
        /// Its CPU time ran out.
        Cpu = "cpu",
        /// It asked for more memory than it may have.
        Memory = "memory",
        /// Its answer was too large or not valid.
        Answer = "answer",
        /// It could not be instantiated.
        Start = "start",
    }
}

labels! {
    /// What an instance is doing.
    InstanceState {
        /// Warm and waiting.
        Idle = "idle",
        /// In a call.
        Busy = "busy",
    }
}

labels! {
    /// How a download ended.
    DownloadEnd {
        /// The file is complete.
        Done = "done",
        /// The server's file was not newer.
        Unchanged = "unchanged",
        /// Not saved.
        Failed = "failed",
        /// Not started: as many as allowed were queued.
        Refused = "refused",
    }
}

labels! {
    /// Why a connection was closed before its first request.
    ConnectionRejection {
        /// The listener has as many as allowed.
        ListenerFull = "listener-full",
        /// This client has as many as allowed.
        ClientFull = "client-full",
        /// It waited for its client longer than any other when all places were taken.
        Evicted = "evicted",
        /// The TLS handshake failed or took too long.
        Handshake = "handshake",
        /// No complete request head in time, or none that is HTTP.
        Head = "head",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_share_one_label() {
        assert_eq!(
            Method::from(&http::Method::from_bytes(b"BREW").unwrap()),
            Method::Other
        );
    }

    #[test]
    fn every_status_falls_into_one_of_four_classes() {
        for (status, class) in [
            (200, "2xx"),
            (304, "3xx"),
            (404, "4xx"),
            (503, "5xx"),
            (599, "5xx"),
        ] {
            assert_eq!(
                Status::from(http::StatusCode::from_u16(status).unwrap()).as_str(),
                class
            );
        }
    }
}
