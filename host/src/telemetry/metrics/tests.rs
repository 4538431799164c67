use super::*;

#[test]
fn a_request_shows_listener_plugin_method_and_status_class() {
    let metrics = Metrics::new("0.1.0");
    let (tftp, listener) = (metrics.plugin("tftp"), metrics.listener("foreman"));
    listener.answered(
        &tftp,
        &http::Method::POST,
        http::StatusCode::CREATED,
        Duration::from_millis(2),
    );
    let body = metrics.render();
    assert!(body.contains("bulkhead_requests_total{listener=\"foreman\",plugin=\"tftp\",method=\"POST\",status=\"2xx\"} 1\n"), "{body}");
    assert!(
        body.contains(
            "bulkhead_request_duration_seconds_bucket{le=\"0.0025\",plugin=\"tftp\"} 1\n"
        ),
        "{body}"
    );
    assert!(
        body.contains("bulkhead_request_duration_seconds_bucket{le=\"0.001\",plugin=\"tftp\"} 0\n"),
        "{body}"
    );
    assert!(
        body.contains("bulkhead_build_info{version=\"0.1.0\"} 1\n"),
        "{body}"
    );
    assert!(body.ends_with("# EOF\n"));
}

#[test]
fn a_connection_is_counted_as_open_until_it_ends() {
    let metrics = Metrics::new("0.1.0");
    let listener = metrics.listener("hosts");
    let open = listener.connected();
    assert!(
        metrics
            .render()
            .contains("bulkhead_connections{listener=\"hosts\"} 1\n")
    );
    drop(open);
    let body = metrics.render();
    assert!(body.contains("bulkhead_connections{listener=\"hosts\"} 0\n"));
    assert!(body.contains("bulkhead_connections_accepted_total{listener=\"hosts\"} 1\n"));
}

#[test]
fn everything_a_plugin_causes_is_counted_under_its_name() {
    let metrics = Metrics::new("0.1.0");
    let dns = metrics.plugin("dns");
    dns.denied("sockets");
    dns.denied("sockets");
    dns.trapped(Trap::Cpu);
    dns.rejected(Rejection::QueueFull);
    dns.downloaded(DownloadEnd::Failed);
    dns.memory.set(65536);
    let body = metrics.render();
    for line in [
        "bulkhead_denials_total{plugin=\"dns\",capability=\"sockets\"} 2\n",
        "bulkhead_traps_total{plugin=\"dns\",kind=\"cpu\"} 1\n",
        "bulkhead_rejections_total{plugin=\"dns\",reason=\"queue-full\"} 1\n",
        "bulkhead_downloads_total{plugin=\"dns\",result=\"failed\"} 1\n",
        "bulkhead_memory_bytes{plugin=\"dns\"} 65536\n",
    ] {
        assert!(body.contains(line), "{line} in {body}");
    }
}

#[test]
fn every_metric_is_in_the_operators_book() {
    let metrics = Metrics::new("0.1.0");
    let (plugin, listener) = (metrics.plugin("tftp"), metrics.listener("foreman"));
    listener.answered(&plugin, Method::Get, Status::Success, Duration::ZERO);
    listener.rejected(ConnectionRejection::Head);
    plugin.denied("files");
    plugin.trapped(Trap::Trap);
    plugin.rejected(Rejection::NoSlot);
    plugin.downloaded(DownloadEnd::Done);
    let book = include_str!("../../../../docs/src/operators/monitoring.md");
    let body = metrics.render();
    let names: Vec<&str> = body
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    assert!(names.len() > 25, "{body}");
    for name in names {
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        assert!(
            book.contains(&format!("`{name}`")),
            "{name} is not described"
        );
    }
}

#[test]
fn the_same_plugin_has_one_set_of_numbers() {
    let metrics = Metrics::new("0.1.0");
    assert!(Arc::ptr_eq(
        &metrics.plugin("tftp"),
        &metrics.plugin("tftp")
    ));
}

#[test]
fn endless_plugin_names_do_not_make_endless_series() {
    let metrics = Metrics::new("0.1.0");
    for number in 0..2 * PLUGIN_LIMIT {
        metrics.plugin(&format!("plugin-{number}")).denied("files");
    }
    let series = metrics
        .render()
        .lines()
        .filter(|line| line.starts_with("bulkhead_denials_total{"))
        .count();
    assert_eq!(series, PLUGIN_LIMIT + 1);
}
