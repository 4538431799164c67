//! Key files of BIND and ISC DHCP: `key "name" { algorithm hmac-sha256; secret "base64"; };`
//!
//! It refuses files with two keys: which one signs must not be a matter of order. Keywords are read in any case, as BIND and dhcpd read them.

use super::KeyProblem;
use super::secret::{Algorithm, Key, Secret, decode};

/// Reads the one key of a file. Comments are `//`, `#` and `/* */`; names and values may be quoted.
pub(super) fn parse(text: &str) -> Result<Key, KeyProblem> {
    let mut tokens = Tokens { rest: text };
    let mut found = None;
    while let Some(token) = tokens.next()? {
        if token == ";" {
            continue;
        }
        if !token.eq_ignore_ascii_case("key") {
            return Err(KeyProblem::Expected { what: "`key`" });
        }
        if found.is_some() {
            return Err(KeyProblem::SeveralKeys);
        }
        found = Some(key(&mut tokens)?);
    }
    found.ok_or(KeyProblem::Expected {
        what: "`key \"NAME\" { ... };`",
    })
}

fn key(tokens: &mut Tokens<'_>) -> Result<Key, KeyProblem> {
    let name = tokens.word("the key's name")?;
    tokens.exactly("{")?;
    let (mut algorithm, mut secret) = (None, None);
    loop {
        let token = tokens.next()?.ok_or(KeyProblem::Expected { what: "`}`" })?;
        match token.to_ascii_lowercase().as_str() {
            "algorithm" => {
                let named = tokens.word("an algorithm")?;
                algorithm =
                    Some(
                        Algorithm::parse(named).ok_or_else(|| KeyProblem::UnknownAlgorithm {
                            name: named.chars().take(40).collect(),
                        })?,
                    );
                tokens.exactly(";")?;
            }
            "secret" => {
                secret = Some(decode(tokens.secret()?.as_bytes())?);
                tokens.exactly(";")?;
            }
            "}" => break,
            // Never quote the token: it may be the secret itself.
            _ => {
                return Err(KeyProblem::Expected {
                    what: "`algorithm` or `secret`",
                });
            }
        }
    }
    let secret = Secret::new(secret.ok_or(KeyProblem::Expected { what: "`secret`" })?);
    Ok(Key {
        name: name.trim_end_matches('.').to_owned(),
        algorithm,
        secret,
    })
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn word(&mut self, what: &'static str) -> Result<&'a str, KeyProblem> {
        match self.next()? {
            Some(word) if !matches!(word, "{" | "}" | ";" | "") => Ok(word),
            _ => Err(KeyProblem::Expected { what }),
        }
    }

    /// Base64 knows `/` as a digit, and dhcpd, which reads this file too, knows no `//`: what follows at once is a secret, not a comment.
    fn secret(&mut self) -> Result<&'a str, KeyProblem> {
        let waiting = self.rest.trim_start();
        let is_digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        if waiting
            .strip_prefix("//")
            .is_some_and(|rest| rest.starts_with(is_digit))
        {
            self.rest = waiting;
            return Ok(self.plain());
        }
        self.word("the secret")
    }

    fn exactly(&mut self, wanted: &'static str) -> Result<(), KeyProblem> {
        if self.next()? == Some(wanted) {
            Ok(())
        } else {
            Err(KeyProblem::Expected { what: wanted })
        }
    }

    fn next(&mut self) -> Result<Option<&'a str>, KeyProblem> {
        self.skip_blanks()?;
        let Some(first) = self.rest.chars().next() else {
            return Ok(None);
        };
        let (token, rest) = match first {
            '{' | '}' | ';' => self.rest.split_at(1),
            '"' => self
                .rest
                .get(1..)
                .and_then(|quoted| quoted.split_once('"'))
                .ok_or(KeyProblem::Expected {
                    what: "a closing quote",
                })?,
            _ => return Ok(Some(self.plain())),
        };
        self.rest = rest;
        Ok(Some(token))
    }

    /// A word without quotes.
    fn plain(&mut self) -> &'a str {
        let ends = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '"');
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn skip_blanks(&mut self) -> Result<(), KeyProblem> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with("//") || self.rest.starts_with('#') {
                self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment
                    .split_once("*/")
                    .map(|(_, rest)| rest)
                    .ok_or(KeyProblem::Expected { what: "`*/`" })?;
            } else {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_gives_name_algorithm_and_secret() {
        let text = "// made by rndc-confgen\n# old style\n/* and\n this */ key \"foreman-omapi.\" {\n\talgorithm HMAC-SHA512;\n\tsecret \"aGVsbG8=\";\n};\n";
        let key = parse(text).unwrap();
        assert_eq!(
            (key.name.as_str(), key.algorithm, key.secret.expose()),
            ("foreman-omapi", Some(Algorithm::Sha512), &b"hello"[..])
        );
    }

    #[test]
    fn quotes_order_and_final_semicolon_are_free() {
        let key = parse("key k{secret aGVsbG8=;algorithm \"hmac-md5.sig-alg.reg.int\";}").unwrap();
        assert_eq!(
            (key.name.as_str(), key.algorithm),
            ("k", Some(Algorithm::Md5))
        );
        assert_eq!(
            parse("key k { secret aGVsbG8=; };").unwrap().algorithm,
            None
        );
    }

    #[test]
    fn keywords_are_read_in_any_case_and_slashes_are_digits() {
        let key = parse("KEY k { Algorithm hmac-md5; SECRET //8=; };").unwrap();
        assert_eq!(
            (key.algorithm, key.secret.expose()),
            (Some(Algorithm::Md5), &[0xff, 0xff][..])
        );
        assert_eq!(
            parse("key k { secret // old\n aGVsbG8=; };")
                .unwrap()
                .secret
                .expose(),
            b"hello"
        );
        assert_eq!(
            parse("key k { secret aG//bG8=; };")
                .unwrap()
                .secret
                .expose(),
            b"ho\xff\x6c\x6f"
        );
    }

    #[test]
    fn broken_files_are_refused_without_quoting_them() {
        let broken = [
            "",
            "options { };",
            "key { secret aGk=; };",
            "key k { secret aGk=; } key l { secret aGk=; };",
            "key k { secret \"aGk=",
            "key k { algorithm hmac-sha3; secret aGk=; };",
            "key k { };",
            "key k { secret ***; };",
            "key k { s3cr3t; };",
            "/* key k { secret aGk=; };",
            "key k { secret ; };",
        ];
        for text in broken {
            let problem = parse(text).unwrap_err().to_string();
            assert!(
                !problem.contains("aGk=")
                    && !problem.contains("s3cr3t")
                    && !problem.contains("***"),
                "{text}: {problem}"
            );
        }
    }
}
