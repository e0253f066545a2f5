//! Operands and literals.

use crate::ast::Operand;

/// The operands of an instruction, or None where they cannot be read.
pub(crate) fn operands(text: &str) -> Option<Vec<Operand>> {
    OperandParser { text: text.as_bytes(), pos: 0 }.list(None)
}

/// A number as PTX writes it.
pub(crate) fn number(text: &str) -> Option<Operand> {
    let (neg, digits) = match text.strip_prefix('-') {
        Some(d) => (true, d),
        None => (false, text),
    };
    if let Some(h) = digits.strip_prefix("0f").or_else(|| digits.strip_prefix("0F")) {
        let v = u32::from_str_radix(h, 16).ok()?;
        return Some(Operand::F32(v ^ (u32::from(neg) << 31)));
    }
    if let Some(h) = digits.strip_prefix("0d").or_else(|| digits.strip_prefix("0D")) {
        let v = u64::from_str_radix(h, 16).ok()?;
        return Some(Operand::F64(v ^ (u64::from(neg) << 63)));
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if digits.contains('.') || (digits.contains(['e', 'E']) && !digits.starts_with("0x")) {
        let v: f64 = text.parse().ok()?;
        return Some(Operand::F64(v.to_bits()));
    }
    let digits = digits.trim_end_matches('U');
    let v = if let Some(h) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i128::from_str_radix(h, 16).ok()?
    } else if let Some(b) = digits.strip_prefix("0b") {
        i128::from_str_radix(b, 2).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        i128::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(Operand::Int(if neg { -v } else { v }))
}

struct OperandParser<'a> {
    text: &'a [u8],
    pos: usize,
}

impl OperandParser<'_> {
    fn blanks(&mut self) {
        while self.text.get(self.pos) == Some(&b' ') {
            self.pos += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.blanks();
        self.text.get(self.pos).copied()
    }

    /// Operands up to the closing byte, or the end.
    fn list(&mut self, close: Option<u8>) -> Option<Vec<Operand>> {
        let mut out = Vec::new();
        loop {
            match self.peek() {
                None => return close.is_none().then_some(out),
                c if c == close => {
                    self.pos += 1;
                    return Some(out);
                }
                Some(b',') => self.pos += 1,
                _ => out.push(self.operand()?),
            }
        }
    }

    fn word(&mut self) -> String {
        self.blanks();
        let start = self.pos;
        while self.text.get(self.pos).is_some_and(|c| {
            c.is_ascii_alphanumeric()
                || matches!(c, b'_' | b'$' | b'%' | b'.')
                || (*c == b'-' && self.pos == start)
        }) {
            self.pos += 1;
        }
        String::from_utf8_lossy(&self.text[start..self.pos]).into_owned()
    }

    fn operand(&mut self) -> Option<Operand> {
        let first = match self.peek()? {
            b'{' => {
                self.pos += 1;
                Operand::Vector(self.list(Some(b'}'))?)
            }
            b'(' => {
                self.pos += 1;
                Operand::List(self.list(Some(b')'))?)
            }
            b'[' => {
                self.pos += 1;
                let base = self.operand()?;
                let mut offset = 0;
                loop {
                    match self.peek()? {
                        b']' => {
                            self.pos += 1;
                            break;
                        }
                        b'+' => {
                            self.pos += 1;
                            let Operand::Int(n) = number(&self.word())? else {
                                return None;
                            };
                            offset += i64::try_from(n).ok()?;
                        }
                        b'-' => {
                            let Operand::Int(n) = number(&self.word())? else {
                                return None;
                            };
                            offset += i64::try_from(n).ok()?;
                        }
                        _ => return None,
                    }
                }
                Operand::Address(Box::new(base), offset)
            }
            b'!' => {
                self.pos += 1;
                Operand::Not(self.word())
            }
            _ => {
                let word = self.word();
                if word.is_empty() {
                    return None;
                }
                if word == "_" {
                    Operand::Sink
                } else if let Some(n) = number(&word) {
                    n
                } else if word.starts_with('-') {
                    return None;
                } else {
                    Operand::Name(word)
                }
            }
        };
        if self.peek() == Some(b'|') {
            self.pos += 1;
            let second = self.operand()?;
            return Some(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Some(first)
    }
}
