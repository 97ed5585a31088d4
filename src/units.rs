//! Sizes and durations as people type them.

use std::time::Duration;

/// A size or time that can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum UnitError {
    /// Not a number with a known unit.
    #[error("{what} {text:?} is not a number with a unit; write for example {example}")]
    Syntax {
        /// Which option.
        what: &'static str,
        /// What was typed.
        text: String,
        /// What would do.
        example: &'static str,
    },
    /// A part of a unit.
    #[error("{what} {text:?} is not a whole number; write for example {example}")]
    Fraction {
        /// Which option.
        what: &'static str,
        /// What was typed.
        text: String,
        /// What would do.
        example: &'static str,
    },
    /// No time at all.
    #[error("{what} {text:?} must be above zero")]
    Zero {
        /// Which option.
        what: &'static str,
        /// What was typed.
        text: String,
    },
    /// Past what fits.
    #[error("{what} {text:?} is too large")]
    Overflow {
        /// Which option.
        what: &'static str,
        /// What was typed.
        text: String,
    },
}

/// Splits digits from unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

/// Why a text is no number with a unit.
fn unreadable(what: &'static str, text: &str, example: &'static str) -> UnitError {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let text = text.to_owned();
    if number.contains('.') && number.parse::<f64>().is_ok() {
        UnitError::Fraction { what, text, example }
    } else {
        UnitError::Syntax { what, text, example }
    }
}

/// Bytes: a number with K, M, G, T (powers of 1024; `KiB` and the like too) or none.
///
/// # Errors
/// No number, unknown unit, or past 2^63 bytes.
pub(crate) fn parse_size(what: &'static str, text: &str) -> Result<u64, UnitError> {
    let syntax = || unreadable(what, text, "128M or 2G");
    let (number, unit) = split(text).ok_or_else(syntax)?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(syntax()),
    };
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes < 1 << 63)
        .ok_or_else(|| UnitError::Overflow { what, text: text.to_owned() })
}

/// A duration: a number with ms, s, m or h; seconds without a unit.
///
/// # Errors
/// No number, unknown unit, zero, or over a year.
pub(crate) fn parse_duration(what: &'static str, text: &str) -> Result<Duration, UnitError> {
    let syntax = || unreadable(what, text, "500ms, 30s or 2m");
    let (number, unit) = split(text).ok_or_else(syntax)?;
    let ms = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(syntax()),
    };
    if number == 0 {
        return Err(UnitError::Zero { what, text: text.to_owned() });
    }
    number
        .checked_mul(ms)
        .filter(|&total| total <= 366 * 24 * 3_600_000)
        .map(Duration::from_millis)
        .ok_or_else(|| UnitError::Overflow { what, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_in_powers_of_1024() {
        assert_eq!(parse_size("--memory", "128M"), Ok(128 << 20));
        assert_eq!(parse_size("--memory", "2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("--memory", "4096"), Ok(4096));
    }

    #[test]
    fn refuses_what_is_not_a_size() {
        for text in ["", "M", "1.5G", "-1", "1X", "9999999999999T", "18446744073709551616"] {
            parse_size("--memory", text).expect_err(text);
        }
    }

    #[test]
    fn reads_durations() {
        assert_eq!(parse_duration("--timeout", "500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("--timeout", "2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn says_what_is_wrong_with_a_number() {
        let of_time = |text| parse_duration("--timeout", text).expect_err(text).to_string();
        assert_eq!(of_time("0"), "--timeout \"0\" must be above zero");
        let whole = "--timeout \"0.5s\" is not a whole number; write for example 500ms, 30s or 2m";
        assert_eq!(of_time("0.5s"), whole);
        assert!(of_time("soon").contains("not a number with a unit"));
        let of_size = |text| parse_size("--memory", text).expect_err(text).to_string();
        assert!(of_size("1.5G").contains("not a whole number"));
        assert!(of_size("1.2.3").contains("not a number with a unit"));
    }
}
