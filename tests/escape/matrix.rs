//! The matrix: every attack twice, with the grant that lets it through, and without.
//!
//! One row is one attack. With its grant it must reach its canary, or it would prove nothing. Without, the canary must be
//! untouched and the host must have counted the denial. "Without" is tried in two ways: with a policy that grants the same slots, but
//! something beside what the attack is after ([`Phase::Beside`]), and with an approved plugin that may do nothing
//! ([`Phase::Nothing`]). Limits have a phase of their own ([`Phase::Tight`]): everything is granted, but little of it.
//!
//! All rows run in one program, whose policy is rewritten while it runs; so the matrix also shows that a policy that shrinks holds at once.

use crate::scene::{Phase, Scene};
use crate::stage::SONG;

/// What shows that an attack got through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// The answer holds the canary's song.
    Sings,
    /// The answer holds this.
    Says(&'static str),
    /// Something outside changed: a file, or a server was reached.
    Touches,
    /// This file of the granted tree comes into being.
    Comes(&'static str),
}

/// One attack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// What it tries.
    pub(crate) name: &'static str,
    /// The route of the attacker.
    what: &'static str,
    /// Its query; names in braces are the scene's.
    fields: &'static str,
    /// With the grant.
    with: Sign,
    /// Without: where, and what the audit (for limits: the answer) says of it.
    without: Phase,
    denial: &'static str,
    /// The call itself succeeds; what was started by it is denied.
    later: bool,
}

const fn row(
    name: &'static str,
    what: &'static str,
    fields: &'static str,
    with: Sign,
    denial: &'static str,
) -> Row {
    Row {
        name,
        what,
        fields,
        with,
        without: Phase::Beside,
        denial,
        later: false,
    }
}

impl Row {
    /// Nothing can lie beside it: it is tried without any grant.
    const fn ungranted(self) -> Self {
        Self {
            without: Phase::Nothing,
            ..self
        }
    }

    /// It uses up something.
    const fn limit(self) -> Self {
        Self {
            without: Phase::Tight,
            ..self
        }
    }

    const fn later(self) -> Self {
        Self {
            later: true,
            ..self
        }
    }
}

use Sign::{Comes, Says, Sings, Touches};

/// Attacks on files. `{base}` is the inner directory, granted itself or with all that lies around it.
#[rustfmt::skip]
const FILES: &[Row] = &[
    row("read over `..`", "read", "path={base}/../outside/canary", Sings, "read `../outside/canary`"),
    row("read over many `..`", "read", "path={base}/deep/../../outside/canary", Sings, "deep/../../outside/canary"),
    row("read over a link", "read", "path={base}/link-out", Sings, "read `link-out`"),
    row("read over a link to a link", "read", "path={base}/link-to-link", Sings, "read `link-to-link`"),
    row("read through a link to a directory", "read", "path={base}/directory-out/canary", Sings, "read `directory-out/canary`"),
    row("read through a link with a slash after it", "read", "path={base}/directory-out//canary", Sings, "read `directory-out//canary`"),
    row("list the directory above", "list", "path={base}/..", Says("outside"), "read `..`"),
    row("list a directory over a link", "list", "path={base}/directory-out", Says("canary"), "read `directory-out`"),
    row("ask for the size of a file outside", "use", "what=stat&path={base}/../outside/canary", Says("16 bytes"), "outside/canary"),
    row("ask for the size over a link", "use", "what=stat&path={base}/link-out", Says("16 bytes"), "read `link-out`"),
    row("write over `..`", "write", "path={base}/../outside/new&text=x", Touches, "write `../outside/new`"),
    row("write through a link to a directory", "write", "path={base}/directory-out/new&text=x", Touches, "write `directory-out/new`"),
    row("write over a file by a link", "write", "path={base}/link-out&text=x", Touches, "write `link-out`"),
    row("create over `..`, only if absent", "use", "what=create-new&path={base}/../outside/created", Touches, "write `../outside/created`"),
    row("append to a file outside", "use", "what=append&path={base}/../outside/canary", Touches, "write `../outside/canary`"),
    row("empty a file outside", "use", "what=truncate&path={base}/../outside/canary", Touches, "write `../outside/canary`"),
    row("remove a file outside", "remove", "path={base}/../outside/canary", Touches, "write `../outside/canary`"),
    row("remove through a link to a directory", "remove", "path={base}/directory-out/canary", Touches, "write `directory-out/canary`"),
    row("rename a file out", "rename", "path={base}/own&to={base}/../outside/stolen", Touches, "leads out"),
    row("rename a file in", "rename", "path={base}/../outside/canary&to={base}/stolen", Touches, "`../outside/canary`"),
    row("rename a file in through a link", "rename", "path={base}/directory-out/canary&to={base}/stolen", Touches, "`directory-out/canary`"),
    row("make a directory outside", "use", "what=mkdir&path={base}/../outside/made", Touches, "write `../outside/made`"),
    row("remove a directory outside", "use", "what=rmdir&path={base}/../outside/empty", Touches, "write `../outside/empty`"),
    row("write where only reading is granted", "write", "path=/tight/canary&text=x", Touches, "write `canary` below files slot `tight`"),
    row("create where only reading is granted", "write", "path=/tight/new&text=x", Touches, "write `new` below files slot `tight`"),
    row("remove where only reading is granted", "remove", "path=/tight/canary", Touches, "write `canary` below files slot `tight`"),
    row("rename where only reading is granted", "rename", "path=/tight/canary&to=/tight/other", Touches, "below files slot `tight`"),
    row("append where only reading is granted", "use", "what=append&path=/tight/canary", Touches, "write `canary` below files slot `tight`"),
    row("empty a file where only reading is granted", "use", "what=truncate&path=/tight/canary", Touches, "write `canary` below files slot `tight`"),
    row("make a directory where only reading is granted", "use", "what=mkdir&path=/tight/made", Touches, "write `made` below files slot `tight`"),
    row("read the neighbour of the one granted file", "read", "path=/one/canary", Sings, "files slot `one`"),
    row("read the neighbour over the granted file's name", "read", "path=/one/./canary", Sings, "files slot `one`"),
    row("have the host send a file outside over a link", "file", "slot=data&path={inner}link-out", Sings, "link-out"),
    row("have the host send a file outside over an absolute link", "file", "slot=data&path={inner}absolute-out", Sings, "absolute-out"),
    row("have the host send a file through a link to a directory", "file", "slot=data&path={inner}directory-out/canary", Sings, "directory-out/canary"),
    row("have the host send the neighbour of the one granted file", "file", "slot=one&path=canary", Sings, "files slot `one`"),
    row("have the host send a file of a slot without a grant", "file", "slot=data&path=outside/canary", Sings, "files slot `data`").ungranted(),
];

/// Attacks on sockets and names.
#[rustfmt::skip]
const SOCKETS: &[Row] = &[
    row("connect to a port", "tcp", "address=127.0.0.1:{tcp}", Sings, "TCP to 127.0.0.1:{tcp}"),
    row("connect to another address of this machine", "tcp", "address=127.0.0.2:{tcp2}", Sings, "TCP to 127.0.0.2:{tcp2}"),
    row("connect over IPv6", "tcp", "address=[::1]:{tcp6}", Sings, "TCP to [::1]:{tcp6}"),
    row("connect to an address written in decimal", "tcp", "address=2130706433:{tcp}", Sings, "127.0.0.1:{tcp}"),
    row("connect to an address written in hexadecimal", "tcp", "address=0x7f000001:{tcp}", Sings, "127.0.0.1:{tcp}"),
    row("connect by a name", "tcp", "address=localhost:{tcp}", Sings, "`localhost`"),
    row("send a datagram", "udp", "address=127.0.0.1:{udp}&text=ping", Sings, "datagram to 127.0.0.1:{udp}"),
    row("send a datagram over IPv6", "udp", "address=[::1]:{udp6}&text=ping", Sings, "datagram to [::1]:{udp6}"),
    row("carry data out by a datagram nobody answers", "udp", "address=127.0.0.1:{mute}&text=stolen", Touches, "datagram to 127.0.0.1:{mute}"),
    row("connect without any grant", "tcp", "address=127.0.0.1:{tcp}", Sings, "TCP to 127.0.0.1:{tcp}").ungranted(),
    row("send a datagram without any grant", "udp", "address=127.0.0.1:{udp}&text=ping", Sings, "UDP socket").ungranted(),
    row("look a name up", "resolve", "name=localhost", Says("127.0.0.1"), "`localhost`"),
    row("look a name up in capitals", "resolve", "name=LOCALHOST", Says("127.0.0.1"), "`localhost`"),
    row("look a name up with a dot after it", "resolve", "name=localhost.", Says("127.0.0.1"), "`localhost`"),
    row("look a name up without any grant", "resolve", "name=localhost", Says("127.0.0.1"), "`localhost`").ungranted(),
];

/// Attacks by requests.
#[rustfmt::skip]
const REQUESTS: &[Row] = &[
    row("ask for another path", "http", "slot=api&method=GET&target=/file/canary", Sings, "/file/canary"),
    row("ask for another path with a query that looks granted", "http", "slot=api&method=GET&target=/file/canary?x=/granted/", Sings, "/file/canary"),
    row("ask by another method", "http", "slot=api&method=POST&target=/file/canary", Sings, "POST"),
    row("delete", "http", "slot=api&method=DELETE&target=/file/canary", Sings, "DELETE"),
    row("ask another server", "http", "slot=other&method=GET&target=/file/canary", Sings, "other"),
    row("ask another server by an absolute URL", "http", "slot=other&method=GET&target=http://127.0.0.1:{other}/file/canary", Sings, "127.0.0.1:{other}"),
    row("ask without any grant", "http", "slot=api&method=GET&target=/file/canary", Sings, "api").ungranted(),
    row("forward to another path", "forward", "slot=api&method=GET&target=/file/canary", Sings, "/file/canary"),
    row("forward by another method", "forward", "slot=api&method=PUT&target=/file/canary", Sings, "PUT"),
    row("forward to another server", "forward", "slot=other&method=GET&target=/file/canary", Sings, "other"),
    row("forward without any grant", "forward", "slot=api&method=GET&target=/file/canary", Sings, "api").ungranted(),
    row("ask Foreman for another path", "foreman", "slot=foreman&method=GET&target=/users/login", Sings, "/users/login"),
    row("ask Foreman for a path that begins like a granted one", "foreman", "slot=foreman&method=GET&target=/apiary", Sings, "/apiary"),
    row("ask Foreman by another method", "foreman", "slot=foreman&method=POST&target=/api/status", Sings, "POST /api/status"),
    row("delete at Foreman", "foreman", "slot=foreman&method=DELETE&target=/api/hosts/1", Sings, "DELETE /api/hosts/1"),
    row("ask Foreman without any grant", "foreman", "slot=foreman&method=GET&target=/api/status", Sings, "GET /api/status").ungranted(),
    row("forward to another path of Foreman", "forward", "slot=foreman&method=GET&target=/users/logout", Sings, "/users/logout"),
    row("forward to Foreman by another method", "forward", "slot=foreman&method=POST&target=/api/facts", Sings, "POST /api/facts"),
    row("forward to Foreman without any grant", "forward", "slot=foreman&method=GET&target=/api/status", Sings, "GET /api/status").ungranted(),
    row("download from another path", "download", "slot=media&url=http://127.0.0.1:{web}/file/canary&path=from-path", Comes("from-path"), "/file/canary"),
    row("download from another server", "download", "slot=media&url=http://127.0.0.1:{other}/file/canary&path=from-server", Comes("from-server"), "127.0.0.1:{other}"),
    row("download by a redirect to another server", "download", "slot=media&url=http://127.0.0.1:{web}/redirect/out&path=redirected", Comes("redirected"), "127.0.0.1:{other}").later(),
    row("download without any grant", "download", "slot=media&url=http://127.0.0.1:{web}/file/canary&path=ungranted", Comes("ungranted"), "media").ungranted(),
];

/// Attacks on keys, secrets and other plugins.
#[rustfmt::skip]
const KEPT: &[Row] = &[
    row("write a key where only reading is granted", "store", "slot=keys&key=a", Says("revision"), "change stored data (store slot `keys`)"),
    row("delete a key where only reading is granted", "keys", "what=delete&slot=keys&key=a", Says("ok"), "change stored data (store slot `keys`)"),
    row("read a key that others share", "keys", "what=read&slot=shared&key=canary", Says("ok"), "store slot `shared`"),
    row("write a key that others share", "store", "slot=shared&key=canary", Says("revision"), "store slot `shared`"),
    row("list keys that others share", "keys", "what=scan&slot=shared", Says("keys"), "store slot `shared`"),
    row("follow changes that others make", "keys", "what=changes&slot=shared", Says("ok"), "store slot `shared`"),
    row("read a key without any grant", "keys", "what=read&slot=keys&key=a", Says("ok"), "store slot `keys`").ungranted(),
    row("see a secret that may only be used", "reveal", "slot=key", Sings, "see"),
    row("sign with a secret", "sign", "slot=mac", Says("ok"), "`mac`"),
    row("verify with a secret", "secret", "what=verify&slot=mac", Says("false"), "`mac`"),
    row("ask which algorithm a secret has", "secret", "what=about&slot=mac", Says("ok"), "`mac`"),
    row("see a secret without any grant", "reveal", "slot=key", Sings, "`key`").ungranted(),
    row("call another plugin without any grant", "call", "name=a.example.com", Says("records"), "dns-provider").ungranted(),
];

/// Attacks by what looks at this machine and its network, and by the answer itself.
#[rustfmt::skip]
const LOOKS: &[Row] = &[
    row("follow a file over `..`", "watch", "slot=news&path={inner}../outside/canary", Sings, "../outside/canary` of watch slot `news`"),
    row("follow a file over a link", "watch", "slot=news&path={inner}link-out", Sings, "link-out` of watch slot `news`"),
    row("follow a file through a link to a directory", "watch", "slot=news&path={inner}directory-out/canary", Sings, "directory-out/canary` of watch slot `news`"),
    row("follow a file that is not listed", "watch", "slot=listed&path={tree}/outside/canary", Sings, "outside/canary` of watch slot `listed`"),
    row("follow a file without any grant", "watch", "slot=news&path=outside/canary", Sings, "watch slot `news`").ungranted(),
    row("ask who is in another network", "probe", "slot=net&address=127.0.0.1&count=1", Says("Answered"), "ask whether 127.0.0.1 is in use"),
    row("ask who is there, by a mapped address", "probe", "slot=net&address=::ffff:127.0.0.1&count=1", Says("Answered"), "ask whether 127.0.0.1 is in use"),
    row("ask who is there without any grant", "probe", "slot=net&address=127.0.0.1&count=1", Says("Answered"), "probe slot `net`").ungranted(),
    row("see leases without any grant", "leases", "", Says("subnets"), "dhcp-provider").ungranted(),
];

/// Attacks that use something up. Here the answer (or the fact that there is none) is what shows the limit.
#[rustfmt::skip]
const LIMITS: &[Row] = &[
    row("fill a directory with one file", "use", "what=fill&path={base}/filled&text=200000", Says("ok"), "refused").limit(),
    row("fill a directory with many files", "use", "what=many&path={base}/many&text=40", Says("ok"), "refused").limit(),
    row("fill the store with one value", "keys", "what=fill&slot=keys&key=big-{phase}&text=20000", Says("ok"), "quota is used up").limit(),
    row("fill the store with small keys", "keys", "what=many&slot=keys&key=k-{phase}-&text=30", Says("ok"), "quota is used up").limit(),
    row("hold sockets open", "hold", "address=127.0.0.1:{tcp}&count=8", Says("8 sockets"), "refused").limit(),
    row("take memory", "take", "what=memory&amount=30000000", Says("ok"), "500").limit(),
    row("compute for long", "take", "what=cpu&amount=1500", Says("ok"), "504").limit(),
    row("wait for long", "take", "what=time&amount=3000", Says("ok"), "504").limit(),
    row("answer with much", "take", "what=reply&amount=500000", Says("ok"), "500").limit(),
    row("hold handles of the host", "take", "what=handles&amount=1000", Says("ok"), "500").limit(),
    row("fetch much randomness at once", "take", "what=random&amount=30000", Says("ok"), "500").limit(),
    row("carry much out in one call", "take", "what=line&amount=500000", Says("ok"), "500").limit(),
    row("take a large answer of a server", "http", "slot=api&method=GET&target=/file/large", Says("xxxx"), "refused").limit(),
    row("wait for a slow server", "http", "slot=api&method=GET&target=/slow/canary", Sings, "refused").limit(),
    row("ask for many addresses at once", "probe", "slot=net&address=127.0.0.1&count=40", Says("Answered"), "probes a second").limit(),
    row("download a large file", "download", "slot=media&url=http://127.0.0.1:{web}/file/large&path=large", Comes("large"), "").limit().later(),
];

fn all() -> impl Iterator<Item = Row> {
    [FILES, SOCKETS, REQUESTS, KEPT, LOOKS, LIMITS]
        .into_iter()
        .flatten()
        .copied()
}

/// The table is what the promise rests on: it may grow, and no row may lose a side.
#[test]
fn the_matrix_has_its_rows_and_every_row_both_sides() {
    let mut names = std::collections::BTreeSet::new();
    for row in all() {
        assert!(names.insert(row.name), "{} is there twice", row.name);
        assert_ne!(row.with, Says(""), "{}: nothing shows success", row.name);
        assert_ne!(
            row.without,
            Phase::Everything,
            "{}: there is no side without the grant",
            row.name
        );
        assert!(
            !row.denial.is_empty() || row.later,
            "{}: nothing shows the denial",
            row.name
        );
    }
    assert!(names.len() >= 60, "only {} attacks", names.len());
}

#[test]
fn every_attack_needs_its_grant() {
    let mut scene = Scene::set();
    let mut wrong = Vec::new();
    scene.enter(Phase::Everything);
    for row in all() {
        scene.reset();
        let before = scene.world();
        let answer = scene.attack(row.what, row.fields);
        let through = match row.with {
            Sings => answer.contains(SONG),
            Says(text) => answer.starts_with("200") && answer.contains(text),
            Touches => scene.world() != before,
            Comes(file) => scene.comes(file),
        };
        if !through {
            wrong.push(format!("{}: proves nothing: {answer}", row.name));
        }
    }
    for phase in [Phase::Beside, Phase::Nothing, Phase::Tight] {
        scene.enter(phase);
        for row in all() {
            // Limits hold where everything is granted; the rest must hold wherever it is not.
            if (phase == Phase::Tight) != (row.without == Phase::Tight) {
                continue;
            }
            if phase == Phase::Beside && row.without == Phase::Nothing {
                continue;
            }
            if let Err(why) = without(&scene, phase, &row) {
                wrong.push(format!("{phase:?}: {}: {why}", row.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        all().count(),
        wrong.join("\n")
    );
}

/// One attack without its grant: nothing is reached, and the host knows.
fn without(scene: &Scene, phase: Phase, row: &Row) -> Result<(), String> {
    scene.reset();
    let before = scene.world();
    let denied = scene.denials();
    let answer = scene.attack(row.what, row.fields);
    if answer.contains(SONG) || (answer.starts_with("200 ok") && !row.later) {
        return Err(format!("went through: {answer}"));
    }
    let expected = scene.fill(row.denial, phase);
    if phase == Phase::Tight {
        if !answer.to_lowercase().contains(&expected) {
            return Err(format!("expected {expected:?}: {answer}"));
        }
        if let (Comes(file), true) = (row.with, row.later) {
            // A limit of what runs in the background: it has to end, and leave nothing.
            if scene.comes(file) {
                return Err("came all the same".to_owned());
            }
        }
        return Ok(());
    }
    // A plugin without any directory does not even find the host to ask.
    if phase == row.without && !scene.denied_since(&denied, &expected) {
        return Err(format!(
            "no denial names {expected:?} ({answer}); new ones:\n    {}",
            scene.new_denials(&denied).join("\n    ")
        ));
    }
    let after = scene.world();
    if after != before {
        return Err(format!("touched: {before:?}\n  {after:?}"));
    }
    if let Comes(file) = row.with
        && scene.is_there(file)
    {
        return Err("came all the same".to_owned());
    }
    Ok(())
}
