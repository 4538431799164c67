//! Plugins and policies: of the running proxy as it shows them, else as they would come up.

use super::finding::{Area, Finding};
use crate::api::control::{DenialView, PluginState, PluginView};
use crate::cli::client::{Client, ClientError};
use crate::cli::plan::Plan;

/// `plan` knows the plugins whose settings or policy would keep them from running.
pub(super) fn look(plan: &Plan, client: &Client) -> Vec<Finding> {
    match client.get::<Vec<PluginView>>("/plugins") {
        Ok(plugins) => {
            let denials: Vec<DenialView> = client.get("/denials").unwrap_or_default();
            let mut findings: Vec<Finding> = plugins.iter().flat_map(plugin).collect();
            findings.extend(denials.iter().map(denial));
            findings
        }
        Err(error) => {
            let mut findings = vec![match error {
                ClientError::NotRunning { .. } => Finding::unknown(
                    Area::Plugins,
                    "the proxy",
                    "does not run, so nothing is known of running plugins",
                    "start it (`bulkhead serve`, or its systemd unit) and look again",
                ),
                other => Finding::problem(
                    Area::Plugins,
                    "the proxy",
                    other,
                    "restart it if it does not answer",
                ),
            }];
            findings.extend(plan.unseen.iter().map(|reason| {
                Finding::unknown(
                    Area::Plugins,
                    "bundled plugins",
                    reason,
                    "their sockets and directories were not looked at",
                )
            }));
            findings.extend(plan.troubles.iter().map(|(plugin, reason)| {
                Finding::problem(
                    Area::Plugins,
                    plugin,
                    reason,
                    "correct its section of the configuration or its policy",
                )
            }));
            findings
        }
    }
}

fn plugin(view: &PluginView) -> Vec<Finding> {
    let reason = view
        .reason
        .clone()
        .unwrap_or_else(|| view.state.to_string());
    let advice = match view.missing.as_slice() {
        [] => format!(
            "`bulkhead policy explain {}` shows what it may do; its log lines are in /logs",
            view.name
        ),
        lines => format!(
            "`bulkhead policy allow {} '{}'`",
            view.name,
            lines.join("' and '")
        ),
    };
    let mut findings = match view.state {
        PluginState::Disabled => return Vec::new(),
        PluginState::Running if view.reason.is_none() => {
            vec![Finding::good(Area::Plugins, &view.name, "running")]
        }
        PluginState::Starting | PluginState::Draining => {
            vec![Finding::unknown(
                Area::Plugins,
                &view.name,
                reason,
                "look again in a moment",
            )]
        }
        PluginState::Pending | PluginState::Failed | PluginState::Running => {
            vec![Finding::problem(Area::Plugins, &view.name, reason, advice)]
        }
    };
    findings.extend(view.warnings.iter().map(|warning| {
        Finding::warning(
            Area::Plugins,
            &view.name,
            warning,
            "take the grant out of the policy, or update the plugin",
        )
    }));
    findings
}

fn denial(denial: &DenialView) -> Finding {
    Finding::warning(
        Area::Plugins,
        &denial.plugin,
        format!(
            "was denied: {} ({} times): {}",
            denial.action, denial.count, denial.reason
        ),
        match (&denial.fix, &denial.instead) {
            (Some(fix), _) => format!("if it is meant to, add to its policy: {fix}"),
            (None, Some(change)) => format!("if it is meant to, {change}"),
            (None, None) => "no policy may allow it".to_owned(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::with_host;
    use crate::cli::doctor::finding::Level;

    #[test]
    fn without_a_proxy_what_would_fail_is_told() {
        let place = tempfile::tempdir().unwrap();
        let client = Client::new(&crate::cli::place::Place {
            state: Some(place.path().to_owned()),
            ..Default::default()
        });
        let plan = Plan {
            troubles: vec![("dns".into(), "no zones".into())],
            ..Plan::default()
        };
        let found = look(&plan, &client.unwrap());
        assert_eq!(found[0].level, Level::Unknown);
        assert_eq!(
            (found[1].level, found[1].found.as_str()),
            (Level::Problem, "no zones")
        );
    }

    #[test]
    fn a_running_proxy_is_asked() {
        with_host(|place| {
            let found = look(&Plan::default(), &Client::new(place).unwrap());
            assert!(found.iter().any(|it| it.subject == "tftp"), "{found:?}");
        });
    }

    #[test]
    fn what_waits_is_told_with_the_line_that_helps() {
        let mut view = PluginView {
            name: "dns".into(),
            version: "1".into(),
            digest: String::new(),
            origin: "bundled".into(),
            state: PluginState::Pending,
            reason: Some("it needs call".into()),
            mounts: Vec::new(),
            missing: vec!["[call.dns-provider]".into()],
            warnings: vec!["a grant nobody asks for".into()],
            previous: None,
        };
        let found = plugin(&view);
        let levels: Vec<Level> = found.iter().map(|it| it.level).collect();
        assert_eq!(levels, [Level::Problem, Level::Warning]);
        let advice = found[0].advice.as_deref().unwrap();
        assert!(
            advice.contains("policy allow dns '[call.dns-provider]'"),
            "{advice}"
        );
        // A service whose port is taken runs, and cannot work.
        view.state = PluginState::Running;
        assert_eq!(plugin(&view)[0].level, Level::Problem);
        view.reason = None;
        assert_eq!(plugin(&view)[0].level, Level::Good);
        view.state = PluginState::Disabled;
        assert_eq!(plugin(&view), []);
    }
}
