//! The tokens of ISC's files (`dhcpd.conf(5)`, `dhcpd.leases(5)`): words, quoted strings, and the characters `{ } ; , =`.
//!
//! It copies nothing and knows no keyword. What is not closed at the end of the text is no token: a file that is still being
//! written ends like that.

use std::borrow::Cow;

/// One token. Its text is a slice of what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// Anything without blanks: a keyword, a number, an address.
    Word(&'a [u8]),
    /// A string with its quotes, escapes as they stand.
    Quoted(&'a [u8]),
    /// `{`
    Open,
    /// `}`
    Close,
    /// `;`
    End,
    /// `,`
    Comma,
    /// `=`
    Equals,
}

/// Gives one token after the other.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Begins at the start of the text.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Bytes read.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes before the next token.
    pub fn next_at(&mut self) -> usize {
        let _ = self.skip_blanks();
        self.at
    }

    /// Goes (back) to where [`Lexer::at`] was.
    pub fn seek(&mut self, at: usize) {
        self.at = at;
    }

    /// What stands between two places.
    #[must_use]
    pub fn between(&self, from: usize, to: usize) -> &'a [u8] {
        self.text.get(from..to).unwrap_or_default()
    }

    /// The line of a place, counted from 1.
    #[must_use]
    pub fn line(&self, at: usize) -> usize {
        1 + self
            .between(0, at)
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
    }

    /// Reads on behind the token's end up to the end of the statement, which may hold braces. None: the text ends first.
    pub fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.next()? {
                Token::Open => depth += 1,
                Token::Close => depth = depth.checked_sub(1)?,
                Token::End if depth == 0 => return Some(()),
                _ => {}
            }
        }
    }

    /// Reads on to the end of a statement that nobody knows: its semicolon, or the end of its block. None: the text ends first.
    pub fn skip_statement(&mut self) -> Option<()> {
        loop {
            let before = self.at;
            match self.next()? {
                Token::Open => return self.skip_block(),
                Token::End => return Some(()),
                // Of the block around it.
                Token::Close => {
                    self.at = before;
                    return Some(());
                }
                _ => {}
            }
        }
    }

    /// Reads on to the brace that closes the block just opened. None: the text ends first.
    pub fn skip_block(&mut self) -> Option<()> {
        let mut depth = 1_usize;
        while depth > 0 {
            match self.next()? {
                Token::Open => depth += 1,
                Token::Close => depth -= 1,
                _ => {}
            }
        }
        Some(())
    }

    fn skip_blanks(&mut self) -> Option<u8> {
        loop {
            match *self.text.get(self.at)? {
                b'#' => {
                    self.at += self
                        .text
                        .get(self.at..)?
                        .iter()
                        .position(|&byte| byte == b'\n')?
                }
                // Every control character: what ends a word and starts none would be read for ever.
                byte if byte <= b' ' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn quoted(&mut self) -> Option<Token<'a>> {
        let start = self.at;
        let mut at = start + 1;
        loop {
            match *self.text.get(at)? {
                b'\\' => at += 2,
                b'"' => break,
                _ => at += 1,
            }
        }
        self.at = at + 1;
        Some(Token::Quoted(self.text.get(start..self.at)?))
    }
}

/// True for what ends a word.
fn ends_word(byte: u8) -> bool {
    matches!(
        byte,
        b';' | b'{' | b'}' | b',' | b'=' | b'"' | b'#' | 0..=b' '
    )
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let token = match self.skip_blanks()? {
            b'{' => Token::Open,
            b'}' => Token::Close,
            b';' => Token::End,
            b',' => Token::Comma,
            b'=' => Token::Equals,
            b'"' => return self.quoted(),
            _ => {
                let rest = self.text.get(self.at..)?;
                let length = rest
                    .iter()
                    .position(|&byte| ends_word(byte))
                    .unwrap_or(rest.len());
                self.at += length;
                return Some(Token::Word(rest.get(..length)?));
            }
        };
        self.at += 1;
        Some(token)
    }
}

/// A keyword in the one form in which it is compared: dhcpd reads them without regard to case.
#[must_use]
pub fn keyword(word: &[u8]) -> Cow<'_, [u8]> {
    match word.iter().any(u8::is_ascii_uppercase) {
        true => Cow::Owned(word.to_ascii_lowercase()),
        false => Cow::Borrowed(word),
    }
}

/// A string without its quotes, escapes resolved (`\"`, `\\`, `\ooo`). What is no string stays as it is.
#[must_use]
pub fn unquoted(raw: &[u8]) -> String {
    let Some(inside) = raw
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
    else {
        return String::from_utf8_lossy(raw).into_owned();
    };
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let digits = rest
            .iter()
            .take(3)
            .take_while(|byte| matches!(byte, b'0'..=b'7'))
            .count();
        if digits > 0 {
            let (octal, after) = rest.split_at(digits);
            let value = octal
                .iter()
                .fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            bytes.push(u8::try_from(value).unwrap_or(b'?'));
            rest = after;
        } else if let Some((&escaped, after)) = rest.split_first() {
            bytes.push(match escaped {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                other => other,
            });
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Lexer::new(text.as_bytes())
            .map(|token| match token {
                Token::Word(text) | Token::Quoted(text) => {
                    String::from_utf8_lossy(text).into_owned()
                }
                Token::Open => "{".into(),
                Token::Close => "}".into(),
                Token::End => ";".into(),
                Token::Comma => ",".into(),
                Token::Equals => "=".into(),
            })
            .collect()
    }

    #[test]
    fn comments_and_blanks_separate() {
        assert_eq!(
            words("a b;# c\n\td{e=f,g}"),
            ["a", "b", ";", "d", "{", "e", "=", "f", ",", "g", "}"]
        );
        assert_eq!(words("# only a comment"), [""; 0]);
        assert_eq!(words("a 10.0.0.1# c; d\n;"), ["a", "10.0.0.1", ";"]);
    }

    #[test]
    fn strings_keep_everything_until_their_quote() {
        assert_eq!(
            words(r##"uid "\001;}\"#\\";"##),
            ["uid", r##""\001;}\"#\\""##, ";"]
        );
        assert_eq!(words("a \"open;"), ["a"]);
        assert_eq!(words("a \"open\\"), ["a"]);
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(unquoted(br#""a\"b\\c\101\n""#), "a\"b\\cA\n");
        assert_eq!(unquoted(b"plain"), "plain");
        assert_eq!(unquoted(br#""\777""#), "?");
        assert_eq!(unquoted(b"\"\\\""), "");
    }

    #[test]
    fn what_nobody_knows_is_skipped_with_its_block() {
        let mut lexer = Lexer::new(b"a { b { c; } d; } e; f } g");
        assert_eq!(lexer.skip_statement(), Some(()));
        assert_eq!(lexer.next(), Some(Token::Word(b"e")));
        assert_eq!(lexer.skip_statement(), Some(()));
        assert_eq!(lexer.skip_statement(), Some(()));
        assert_eq!(lexer.next(), Some(Token::Close));
        assert_eq!(lexer.skip_statement(), None);
        let mut value = Lexer::new(b"x = { integer 8, text }; y");
        assert_eq!(value.skip_value(), Some(()));
        assert_eq!(value.next(), Some(Token::Word(b"y")));
    }

    #[test]
    fn every_byte_is_passed() {
        for byte in 0..=255u8 {
            let text = [b'a', byte, b'b', b';'];
            assert!(
                Lexer::new(&text).count() <= 4,
                "byte {byte} is read for ever"
            );
        }
    }
}
