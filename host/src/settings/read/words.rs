//! Texts that stand for something: audiences, addresses, networks, URLs, versions; and values that are kept as they are.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use toml::de::DeValue;

use super::Wrong;
use crate::sandbox::bindings::types::Audience;

pub(super) fn audience(text: &str) -> Result<Audience, Wrong> {
    match text {
        "foreman" => Ok(Audience::Foreman),
        "host" => Ok(Audience::Host),
        "public" => Ok(Audience::Public),
        _ => Err((
            format!("`{text}` is none of `foreman`, `host`, `public`"),
            crate::settings::reader::nearest(text, ["foreman", "host", "public"].into_iter()),
        )),
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        (
            format!("`{text}` is no address with port"),
            Some(
                "write `192.0.2.1:8443`, `[2001:db8::1]:8443`, `0.0.0.0:8443` or `[::]:8443`"
                    .into(),
            ),
        )
    })
}

pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| {
            (
                format!("`{text}` is no address and no network"),
                Some("write `192.0.2.1` or `192.0.2.0/24`".into()),
            )
        })
}

/// A name as it may stand in a certificate, in lower case. What can never be one would trust nobody, and nobody would see why.
pub(super) fn host_name(text: &str) -> Result<String, Wrong> {
    let stray = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | '@');
    let address = text.parse::<IpAddr>().is_ok();
    if text.is_empty() || text == "*" || text.contains(stray) && !address {
        return Err((
            format!("`{text}` is no host's name"),
            Some(
                "write the name that stands in its certificate, such as `foreman.example.com`"
                    .into(),
            ),
        ));
    }
    Ok(text.to_lowercase())
}

pub(super) fn http_url(text: &str) -> Result<url::Url, Wrong> {
    let help = || Some("write `https://foreman.example.com`".to_owned());
    let url = url::Url::parse(text)
        .map_err(|error| (format!("contains an invalid url: {error}"), help()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(("must be a http or https URL".into(), help()));
    }
    Ok(url)
}

/// Foreman takes the first two numbers of the text; anything else would be shown to it for nothing.
pub(super) fn version(text: &str) -> Result<String, Wrong> {
    let core = text.strip_suffix("-develop").unwrap_or(text);
    let good = core.split('.').count() == 3
        && core.split('.').all(|part| {
            !part.is_empty() && part.len() < 6 && part.bytes().all(|it| it.is_ascii_digit())
        });
    if good {
        Ok(text.to_owned())
    } else {
        Err((
            format!("`{text}` is not of the form 3.13.0 or 3.13.0-develop"),
            None,
        ))
    }
}

pub(super) fn plain(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(
                |_| toml::Value::String(number.to_string()),
                toml::Value::Integer,
            ),
        DeValue::Boolean(flag) => toml::Value::Boolean(*flag),
        DeValue::Float(number) => toml::Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Datetime(date) => toml::Value::Datetime(*date),
        DeValue::Array(items) => {
            toml::Value::Array(items.iter().map(|it| plain(it.get_ref())).collect())
        }
        DeValue::Table(entries) => toml::Value::Table(
            entries
                .iter()
                .map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref())))
                .collect(),
        ),
    }
}
