use super::*;
use crate::sandbox::bindings::types::Route;
use proptest::prelude::*;

const FOREMAN: Audiences = Audiences(1);
const PUBLIC: Audiences = Audiences(4);

fn route(method: &str, pattern: &str, audience: Audience) -> Route {
    Route {
        method: method.into(),
        pattern: pattern.into(),
        audience,
        body: BodyMode::Whole,
    }
}

fn claim(plugin: &str, mounts: &[&str], routes: &[(&str, &str)]) -> Claim {
    let routes = routes
        .iter()
        .map(|(method, pattern)| route(method, pattern, Audience::Foreman));
    Claim {
        plugin: plugin.into(),
        mounts: mounts.iter().map(|mount| (*mount).to_owned()).collect(),
        routes: routes.collect(),
        whole_body_limit: 1 << 20,
    }
}

fn table(claims: Vec<Claim>) -> RouteTable {
    let mut table = RouteTable::new();
    for claim in claims {
        table.insert(claim).unwrap();
    }
    table
}

/// What a table that holds `before` says to one more claim.
fn inserted(before: Vec<Claim>, claim: Claim) -> Result<(), ClaimError> {
    table(before).insert(claim)
}

/// The matched route's plugin, index and captures.
type Found = (String, u32, Vec<(String, String)>);

/// What a lookup on Foreman's listener finds.
fn found(table: &RouteTable, method: &str, path: &str) -> Option<Found> {
    match table.lookup(method, path, FOREMAN) {
        Outcome::Matched(hit) => {
            let captures = hit
                .captures
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Some((hit.plugin.to_string(), hit.route, captures.collect()))
        }
        _ => None,
    }
}

fn index(table: &RouteTable, method: &str, path: &str) -> Option<u32> {
    found(table, method, path).map(|(_, index, _)| index)
}

#[test]
fn literal_wins_over_name_and_name_over_rest() {
    let table = table(vec![claim(
        "tftp",
        &["/tftp"],
        &[
            ("GET", "/tftp/*rest"),
            ("GET", "/tftp/:variant/:mac"),
            ("GET", "/tftp/serverName"),
            ("GET", "/tftp/:variant"),
        ],
    )]);
    assert_eq!(index(&table, "GET", "/tftp/serverName"), Some(2));
    assert_eq!(index(&table, "GET", "/tftp/PXELinux"), Some(3));
    assert_eq!(index(&table, "GET", "/tftp/PXELinux/x"), Some(1));
    assert_eq!(
        index(&table, "GET", "/tftp/serverName/x"),
        Some(1),
        "goes back from the literal that leads nowhere"
    );
    assert_eq!(index(&table, "GET", "/tftp/a/b/c"), Some(0));
    assert_eq!(
        index(&table, "GET", "/tftp/a/"),
        Some(0),
        "a slash at the end is another path"
    );
}

#[test]
fn captures_come_in_order_with_the_names_of_their_route() {
    let table = table(vec![claim(
        "t",
        &["/t"],
        &[("GET", "/t/:a/x/*tail"), ("GET", "/t/:b/y")],
    )]);
    let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    };
    assert_eq!(
        found(&table, "GET", "/t/1/x/2/3/").unwrap().2,
        pairs(&[("a", "1"), ("tail", "2/3/")])
    );
    assert_eq!(
        found(&table, "GET", "/t/1/x").unwrap().2,
        pairs(&[("a", "1"), ("tail", "")])
    );
    assert_eq!(
        found(&table, "GET", "/t/1/y").unwrap().2,
        pairs(&[("b", "1")])
    );
}

#[test]
fn with_and_without_slash_are_two_routes() {
    let table = table(vec![claim(
        "dns",
        &["/dns"],
        &[("POST", "/dns/"), ("GET", "/dns")],
    )]);
    assert_eq!(index(&table, "POST", "/dns/"), Some(0));
    assert_eq!(index(&table, "POST", "/dns"), None);
    assert_eq!(index(&table, "GET", "/dns"), Some(1));
    assert_eq!(index(&table, "GET", "/dns/"), None);
}

#[test]
fn a_name_is_never_empty() {
    let table = table(vec![claim("t", &["/t"], &[("GET", "/t/:a")])]);
    assert_eq!(index(&table, "GET", "/t/"), None);
    assert_eq!(index(&table, "GET", "/t"), None);
}

#[test]
fn head_is_answered_by_get() {
    let table = table(vec![claim(
        "t",
        &["/t"],
        &[("GET", "/t/a"), ("POST", "/t/b")],
    )]);
    assert_eq!(index(&table, "HEAD", "/t/a"), Some(0));
    assert_eq!(index(&table, "HEAD", "/t/b"), None);
}

#[test]
fn the_longest_mount_owns_the_path_alone() {
    let table = table(vec![
        claim("puppet", &["/puppet"], &[("GET", "/puppet/*rest")]),
        claim(
            "puppetca",
            &["/puppet/ca"],
            &[("GET", "/puppet/ca/autosign")],
        ),
    ]);
    assert_eq!(
        found(&table, "GET", "/puppet/ca/autosign").unwrap().0,
        "puppetca"
    );
    assert_eq!(found(&table, "GET", "/puppet/cat").unwrap().0, "puppet");
    assert!(
        found(&table, "GET", "/puppet/ca/other").is_none(),
        "no fall-back to the outer mount"
    );
    assert!(found(&table, "GET", "/puppetry").is_none());
}

#[test]
fn a_foreman_route_is_unknown_to_other_listeners() {
    let table = table(vec![Claim {
        routes: vec![
            route("GET", "/d/control", Audience::Foreman),
            route("GET", "/d/:any", Audience::Public),
        ],
        ..claim("d", &["/d"], &[])
    }]);
    assert_eq!(
        table.lookup("GET", "/d/control", PUBLIC),
        Outcome::ForeignAudience,
        "not even by the public pattern"
    );
    assert!(matches!(
        table.lookup("GET", "/d/x", PUBLIC),
        Outcome::Matched(_)
    ));
    assert_eq!(
        table.lookup("GET", "/d/x", Audiences::of(&[Audience::Host])),
        Outcome::ForeignAudience
    );
}

#[test]
fn below_a_mount_the_caller_is_asked_who_he_is_first() {
    let table = table(vec![claim("tftp", &["/tftp"], &[("GET", "/tftp/a")])]);
    for (method, path) in [("GET", "/tftp/none"), ("PUT", "/tftp/a"), ("GET", "/tftp")] {
        assert!(matches!(
            table.lookup(method, path, FOREMAN),
            Outcome::UnderMount {
                audience: Audience::Foreman,
                ..
            }
        ));
        assert_eq!(table.lookup(method, path, PUBLIC), Outcome::ForeignAudience);
    }
    assert_eq!(table.lookup("GET", "/elsewhere", FOREMAN), Outcome::Unknown);
    assert_eq!(table.lookup("GET", "/", FOREMAN), Outcome::Unknown);
}

#[test]
fn the_hosts_own_paths_cannot_be_claimed() {
    for mount in [
        "/features",
        "/v2",
        "/v2/features",
        "/logs",
        "/metrics",
        "/healthz",
        "/version",
    ] {
        let refused = inserted(vec![], claim("evil", &[mount], &[]));
        assert!(
            matches!(refused, Err(ClaimError::HostMount { .. })),
            "{mount}"
        );
    }
    for mount in [
        "/",
        "",
        "x",
        "/a/",
        "/a//b",
        "/..",
        "/a b",
        "/:x",
        "/*",
        "/%66eatures",
    ] {
        assert!(
            matches!(
                inserted(vec![], claim("evil", &[mount], &[])),
                Err(ClaimError::BadMount { .. })
            ),
            "{mount}"
        );
    }
    assert!(inserted(vec![], claim("fine", &["/featuresque"], &[])).is_ok());
}

#[test]
fn two_plugins_for_one_path_are_both_named() {
    let tftp = table(vec![claim("tftp", &["/tftp"], &[("GET", "/tftp/x/y")])]);
    let same = tftp
        .clone()
        .insert(claim("evil", &["/tftp"], &[]))
        .err()
        .unwrap();
    assert!(
        same.to_string().contains("`evil`") && same.to_string().contains("`tftp`"),
        "{same}"
    );

    let inside = tftp
        .clone()
        .insert(claim("evil", &["/tftp/x"], &[]))
        .err()
        .unwrap();
    assert!(matches!(inside, ClaimError::RouteTaken { .. }));
    assert!(
        inside.to_string().contains("`evil`") && inside.to_string().contains("`tftp`"),
        "{inside}"
    );

    let inner = table(vec![claim("inner", &["/o/i"], &[])]);
    let outer = inner
        .clone()
        .insert(claim("outer", &["/o"], &[("GET", "/o/i/z")]))
        .err()
        .unwrap();
    assert!(matches!(outer, ClaimError::RouteTaken { .. }), "{outer}");
}

#[test]
fn a_plugin_may_claim_anew_and_leave() {
    let mut table = table(vec![claim("t", &["/t"], &[("GET", "/t/old")])]);
    table
        .insert(claim("t", &["/t"], &[("GET", "/t/new")]))
        .unwrap();
    assert_eq!(index(&table, "GET", "/t/old"), None);
    assert_eq!(index(&table, "GET", "/t/new"), Some(0));
    table.remove("t");
    assert_eq!(table.lookup("GET", "/t/new", FOREMAN), Outcome::Unknown);
}

#[test]
fn a_refused_claim_changes_nothing() {
    let mut table = table(vec![claim("t", &["/t"], &[("GET", "/t/a")])]);
    assert!(table.insert(claim("t", &["/t", "/v2"], &[])).is_err());
    assert_eq!(index(&table, "GET", "/t/a"), Some(0));
}

#[test]
fn patterns_that_cannot_be_matched_are_refused() {
    let refused = |pattern: &str| inserted(vec![], claim("t", &["/t"], &[("GET", pattern)])).err();
    for pattern in [
        "/t/*a/b", "/t//a", "/t/:", "/t/*", "/t/:a/:a", "/t/..", "/t/:1", "/t/\n", "t",
    ] {
        assert!(
            matches!(refused(pattern), Some(ClaimError::BadPattern { .. })),
            "{pattern:?}"
        );
    }
    assert!(matches!(
        refused("/other"),
        Some(ClaimError::OutsideMounts { .. })
    ));
    assert!(matches!(
        refused("/tt"),
        Some(ClaimError::OutsideMounts { .. })
    ));
    for method in ["get", "HEAD", "CONNECT", "", "G T"] {
        let refused = inserted(vec![], claim("t", &["/t"], &[(method, "/t/a")]));
        assert!(
            matches!(refused, Err(ClaimError::BadMethod { .. })),
            "{method}"
        );
    }
    let twice = claim("t", &["/t"], &[("GET", "/t/:a/x"), ("GET", "/t/:b/x")]);
    assert!(matches!(
        inserted(vec![], twice),
        Err(ClaimError::Duplicate { .. })
    ));
    let many = vec![("GET", "/t/a"); 257];
    assert!(matches!(
        inserted(vec![], claim("t", &["/t"], &many)),
        Err(ClaimError::TooMany { .. })
    ));
}

/// What the tree has to find, written the slow way: each pattern segment's kind, compared position by position.
fn slow_match(pattern: &str, path: &str) -> Option<Vec<u8>> {
    let mut ranks = Vec::new();
    let mut rest = path.strip_prefix("/m")?;
    let mut left = pattern.strip_prefix("/m")?;
    loop {
        if left.starts_with("/*") {
            ranks.push(2);
            return Some(ranks);
        }
        if left.len() < 2 || rest.len() < 2 {
            return (left == rest).then_some(ranks);
        }
        let (want, have) = (first_segment(left), first_segment(rest));
        if want.starts_with(':') {
            ranks.push(1);
        } else if want == have {
            ranks.push(0);
        } else {
            return None;
        }
        left = &left[1 + want.len()..];
        rest = &rest[1 + have.len()..];
    }
}

proptest! {
    #[test]
    fn the_tree_finds_what_comparing_every_pattern_finds(
        patterns in proptest::collection::vec("/m(/(a|b|:x)){0,3}(/|/\\*r)?", 1..8),
        path in "/m(/[abc]){0,4}/?",
    ) {
        // Names are made unique within a pattern; two patterns of one shape cannot be claimed, so only the first is kept.
        let mut kept: Vec<String> = Vec::new();
        for pattern in patterns {
            let mut count = 0;
            let named: Vec<String> = pattern.split('/').map(|segment| {
                count += 1;
                if segment == ":x" { format!(":x{count}") } else { segment.to_owned() }
            }).collect();
            let named = named.join("/");
            if !kept.contains(&named) {
                kept.push(named);
            }
        }
        let routes: Vec<(&str, &str)> = kept.iter().map(|pattern| ("GET", pattern.as_str())).collect();
        let table = table(vec![claim("m", &["/m"], &routes)]);
        let best = kept.iter().zip(0u32..).filter_map(|(pattern, index)| Some((slow_match(pattern, &path)?, index))).min();
        prop_assert_eq!(index(&table, "GET", &path), best.map(|(_, index)| index), "{:?} {}", kept, path);
    }
}
