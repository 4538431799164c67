//! Ports: one (`53`), a range (`5000-5010`), or any (`*`).

use super::PatternError;

/// An inclusive range of ports. Port 0 is never covered: it is no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first port, at least 1.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Ports {
    /// Every port.
    pub const ANY: Self = Self {
        first: 1,
        last: u16::MAX,
    };

    /// One port.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// Parses `53`, `5000-5010` or `*`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::ANY);
        }
        let wrong = || {
            PatternError::new(text, "is not a port").help("for example `53`, `5000-5010` or `*`")
        };
        let number = |part: &str| {
            part.parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(wrong)
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(PatternError::new(text, "ends before it begins")
                .help(format!("write `{last}-{first}`")));
        }
        Ok(Self { first, last })
    }

    /// Whether the range holds the port.
    #[must_use]
    pub fn covers(self, port: u16) -> bool {
        port != 0 && (self.first..=self.last).contains(&port)
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::ANY {
            f.write_str("*")
        } else if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_their_ends_and_never_port_zero() {
        let ports = Ports::parse("5000-5010").unwrap();
        assert!(ports.covers(5000) && ports.covers(5010));
        assert!(!ports.covers(4999) && !ports.covers(5011));
        assert!(!Ports::ANY.covers(0));
        assert!(Ports::parse("0").is_err());
        assert!(
            Ports::parse("+5").is_ok_and(|ports| ports.covers(5)) || Ports::parse("+5").is_err()
        );
        assert_eq!(
            Ports::parse("10-5").unwrap_err().help.as_deref(),
            Some("write `5-10`")
        );
    }
}
