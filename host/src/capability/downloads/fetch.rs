//! One try to fetch a URL into a part file.
//!
//! It refuses hops and addresses that the grant does not cover, answers of 400 and above, and more bytes than granted. Each redirect
//! is a new decision with a new connection; nothing is pooled, since boot media are fetched once.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HOST, HeaderMap, HeaderName, HeaderValue,
    IF_MODIFIED_SINCE, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE, USER_AGENT,
};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::part::{Part, Target};
use super::problem::Problem;
use super::track::Track;
use crate::capability::upstream::dial::{Dialer, Origin};
use crate::capability::upstream::trust::Trust;
use crate::capability::upstream::{decide, error};
use crate::grant::effective::DownloadsGrant;
use crate::grant::matchers::url::TargetUrl;
use crate::grant::{Action, Guard};

/// The most redirects followed; browsers stop at 20, mirrors need two or three.
const MAX_HOPS: usize = 10;

/// How long a server may take for the head of its answer, and for each next piece of its body.
const SILENCE: Duration = Duration::from_secs(60);

/// Bytes gathered before they are written, so that each write is worth its way to another thread.
const WRITE_BYTES: usize = 256 * 1024;

/// The largest head of an answer in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What one download needs to know.
pub(super) struct Job {
    pub(super) dialer: Dialer,
    pub(super) guard: Guard,
    pub(super) slot: String,
    pub(super) url: String,
    pub(super) grant: Arc<DownloadsGrant>,
    pub(super) target: Arc<Target>,
    pub(super) track: Arc<Track>,
}

/// What a server says about the file, so that a later try can go on where an earlier one stopped.
#[derive(Debug, Default)]
pub(super) struct Resume {
    /// None before the first try, and when there is nothing to go on with.
    pub(super) part: Option<Part>,
    /// A strong ETag, else the Last-Modified text.
    validator: Option<HeaderValue>,
    modified: Option<SystemTime>,
}

/// How a download ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    /// A new file is in place.
    Saved { bytes: u64 },
    /// The present file is as new as the server's.
    Unchanged,
}

/// Fetches once. `resume` keeps what was received when this fails.
pub(super) async fn fetch(job: &Job, resume: &mut Resume) -> Result<Fetched, Problem> {
    let present = match resume.part {
        Some(_) => None,
        None => {
            blocking({
                let target = job.target.clone();
                move || Ok(target.modified())
            })
            .await?
        }
    };
    let (answer, _driver) = ask(job, resume, present).await?;
    let status = answer.status();
    let going_on = match status {
        StatusCode::NOT_MODIFIED if present.is_some() => return Ok(Fetched::Unchanged),
        StatusCode::OK => false,
        StatusCode::PARTIAL_CONTENT if continues(resume, answer.headers()) => true,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
            if resume.part.is_some() =>
        {
            // The file is another one now: the next try begins anew.
            *resume = Resume::default();
            return Err(Problem::Broken {
                reason: "the server cannot go on where the last try stopped".into(),
            });
        }
        status => {
            return Err(Problem::Status {
                status: status.as_u16(),
            });
        }
    };
    let mut part = Some(match resume.part.take() {
        Some(part) if going_on => part,
        Some(mut part) => blocking(move || part.restart().map(|()| part)).await?,
        None => {
            blocking({
                let target = job.target.clone();
                move || target.begin()
            })
            .await?
        }
    });
    if !going_on {
        resume.validator = validator(answer.headers());
        resume.modified = modified(answer.headers());
    }
    if let Err(problem) = receive(job, answer, &mut part).await {
        // Without a validator nobody can say whether the rest belongs to it.
        resume.part = part.filter(|part| resume.validator.is_some() && part.length() > 0);
        return Err(problem);
    }
    let part = part.ok_or(Problem::Disk {
        reason: "the part file was lost".into(),
    })?;
    let bytes = part.length();
    let modified = resume.modified;
    blocking(move || part.finish(modified)).await?;
    Ok(Fetched::Saved { bytes })
}

/// Follows redirects to an answer that is none.
async fn ask(
    job: &Job,
    resume: &Resume,
    present: Option<SystemTime>,
) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), Problem> {
    let mut url = job.url.clone();
    for _ in 0..MAX_HOPS {
        job.track.now_at(&url);
        let (answer, driver) = hop(job, &url, resume, present).await?;
        let moved = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = answer.headers().get(LOCATION).filter(|_| moved) else {
            return Ok((answer, driver));
        };
        let next = location
            .to_str()
            .ok()
            .and_then(|location| url::Url::parse(&url).ok()?.join(location).ok());
        let next = next.and_then(super::normal_url).ok_or(Problem::Redirect)?;
        tracing::debug!(target: "downloads", plugin = job.guard.plugin(), slot = job.slot, url = next, "redirected");
        url = next;
    }
    Err(Problem::Redirects { limit: MAX_HOPS })
}

async fn hop(
    job: &Job,
    url: &str,
    resume: &Resume,
    present: Option<SystemTime>,
) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), Problem> {
    decide(
        &job.guard,
        &Action::Download {
            slot: &job.slot,
            url,
        },
    )?;
    let parsed = TargetUrl::parse(url).map_err(|_| Problem::Redirect)?;
    let origin = Origin::of(&parsed);
    let allow = |ip: IpAddr, port: u16| {
        let action = Action::DownloadAddress {
            slot: &job.slot,
            host: &origin.host,
            ip,
            port,
        };
        job.guard
            .decide(&action)
            .check()
            .map_err(|denial| denial.to_string())
    };
    let trust = Trust {
        ca: job.grant.ca.clone(),
        identity: None,
        verify: job.grant.verify,
    };
    let connect_by = Instant::now() + job.grant.connect_timeout;
    let (transport, _) = job
        .dialer
        .dial(job.guard.plugin(), &origin, &trust, &allow, connect_by)
        .await?;
    let mut builder = http1::Builder::new();
    builder.max_header_size(MAX_HEAD_BYTES);
    let (mut sender, driver) = builder
        .handshake(TokioIo::new(transport))
        .await
        .map_err(|failed| error::of_hyper(&origin, &failed))?;
    let driver = AbortOnDropHandle::new(job.dialer.io().spawn(async move {
        // Its errors reach the body that is being read.
        let _ = driver.await;
    }));
    let target = if parsed.query.is_empty() {
        parsed.path.to_owned()
    } else {
        format!("{}?{}", parsed.path, parsed.query)
    };
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = target.parse().map_err(|_| Problem::Redirect)?;
    *request.headers_mut() = headers(&origin, resume, present);
    let answer = timeout(SILENCE, sender.send_request(request))
        .await
        .map_err(|_| Problem::Silence { limit: SILENCE })?;
    Ok((
        answer.map_err(|failed| error::of_hyper(&origin, &failed))?,
        driver,
    ))
}

fn headers(origin: &Origin, resume: &Resume, present: Option<SystemTime>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    set(HOST, origin.authority());
    set(
        USER_AGENT,
        concat!("Bulkhead/", env!("CARGO_PKG_VERSION")).into(),
    );
    set(ACCEPT, "*/*".into());
    // The bytes as they are: what a boot loader reads is what the server holds.
    set(ACCEPT_ENCODING, "identity".into());
    if let Some(present) = present {
        set(IF_MODIFIED_SINCE, httpdate::fmt_http_date(present));
    }
    if let (Some(part), Some(validator)) = (&resume.part, &resume.validator) {
        set(RANGE, format!("bytes={}-", part.length()));
        headers.insert(IF_RANGE, validator.clone());
    }
    headers
}

/// Writes the body to the part.
async fn receive(
    job: &Job,
    answer: Response<Incoming>,
    part: &mut Option<Part>,
) -> Result<(), Problem> {
    let limit = job.grant.size;
    let mut total = part.as_ref().map_or(0, Part::length);
    let announced = http_body::Body::size_hint(answer.body())
        .exact()
        .map(|rest| total.saturating_add(rest));
    job.track.expects(total, announced);
    if announced.is_some_and(|total| total > limit) {
        return Err(Problem::TooLarge { limit });
    }
    let mut body = answer.into_body();
    let mut gathered = Vec::with_capacity(WRITE_BYTES);
    loop {
        let ended = match timeout(SILENCE, body.frame()).await {
            Err(_) => Err(Problem::Silence { limit: SILENCE }),
            Ok(None) => Ok(()),
            Ok(Some(Err(broken))) => {
                let reason = std::error::Error::source(&broken)
                    .map_or_else(|| broken.to_string(), ToString::to_string);
                Err(Problem::Broken { reason })
            }
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
                total = total.saturating_add(bytes);
                if total > limit {
                    return Err(Problem::TooLarge { limit });
                }
                job.track.received(bytes);
                gathered.extend_from_slice(&data);
                if gathered.len() >= WRITE_BYTES {
                    write(
                        part,
                        std::mem::replace(&mut gathered, Vec::with_capacity(WRITE_BYTES)),
                    )
                    .await?;
                }
                continue;
            }
        };
        // What came before a break is written too: the next try goes on behind it.
        write(part, gathered).await?;
        return ended;
    }
}

/// Appends to the part where it may block. A part whose write was cut off by the end of the host is not seen again.
async fn write(part: &mut Option<Part>, bytes: Vec<u8>) -> Result<(), Problem> {
    let Some(mut open) = part.take() else {
        return Err(Problem::Disk {
            reason: "the part file was lost".into(),
        });
    };
    let (open, written) = blocking(move || {
        let written = open.write(&bytes);
        Ok((open, written))
    })
    .await?;
    *part = Some(open);
    Ok(written?)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Problem::Disk {
            reason: error.to_string(),
        }),
    }
}

/// Whether a 206 begins where the part ends, and is of the same file.
fn continues(resume: &Resume, headers: &HeaderMap) -> bool {
    let Some(part) = &resume.part else {
        return false;
    };
    let range = headers
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok())
        .unwrap_or_default();
    let start = range
        .strip_prefix("bytes ")
        .and_then(|range| range.split_once('-'))
        .and_then(|(start, _)| start.parse().ok());
    // A server may leave the validator out of a 206; one it sends must be the same.
    let same = validator(headers).is_none_or(|now| Some(&now) == resume.validator.as_ref());
    start == Some(part.length()) && same
}

/// RFC 9110 section 13.1.5: only a strong one proves that bytes belong together.
fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    let strong = headers
        .get(ETAG)
        .filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    strong.or_else(|| headers.get(LAST_MODIFIED)).cloned()
}

fn modified(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(LAST_MODIFIED)?.to_str().ok()?).ok()
}
