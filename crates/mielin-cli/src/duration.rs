//! Spans of time as people type them and read them: `90s`, `10m`, `1.2 ms`.

use std::time::Duration;

use mielin_mesh::TOKEN_LIFETIME_MAX;

/// Reads a whole number with one of the units `s`, `m`, `h` and `d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a span of time; write a number with s, m, h or d, such as 10m");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds_per_unit = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(seconds_per_unit).ok_or_else(wrong)?;
    if seconds == 0 {
        return Err("the span must be longer than nothing".to_owned());
    }
    Ok(Duration::from_secs(seconds))
}

/// Reads a whole number of milliseconds.
pub(crate) fn parse_milliseconds(text: &str) -> Result<u64, String> {
    let wrong =
        |_| format!("`{text}` is not a number of milliseconds; write a whole number, such as 5");
    text.parse().map_err(wrong)
}

/// Reads how long a token shall be good for.
pub(crate) fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = parse_duration(text)?;
    if lifetime > TOKEN_LIFETIME_MAX {
        return Err("a token is good for at most 30d".to_owned());
    }
    Ok(lifetime)
}

/// A limit that somebody waits for, in whole seconds or minutes.
pub(crate) fn format_span(span: Duration) -> String {
    match span.as_secs() {
        1 => "a second".to_owned(),
        60 => "a minute".to_owned(),
        seconds if seconds >= 60 && seconds.is_multiple_of(60) => {
            format!("{} minutes", seconds / 60)
        }
        seconds => format!("{seconds} seconds"),
    }
}

/// Microseconds in the unit that reads best.
pub(crate) fn format_us(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

/// Bytes in the unit that reads best.
pub(crate) fn format_bytes(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..MIB => format!("{:.1} KiB", bytes as f64 / KIB as f64),
        MIB..GIB => format!("{:.1} MiB", bytes as f64 / MIB as f64),
        _ => format!("{:.1} GiB", bytes as f64 / GIB as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in [
            "",
            "10",
            "m",
            "-1s",
            "1.5h",
            "0s",
            "99999999999999999999s",
            "9999999999999999999d",
            "5µ",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_lives_a_month_at_most() {
        assert_eq!(parse_lifetime("30d"), Ok(TOKEN_LIFETIME_MAX));
        assert!(parse_lifetime("31d").is_err());
        assert!(parse_lifetime("2592001s").is_err());
    }

    #[test]
    fn limits() {
        for (seconds, expected) in [
            (1, "a second"),
            (5, "5 seconds"),
            (60, "a minute"),
            (90, "90 seconds"),
            (600, "10 minutes"),
        ] {
            assert_eq!(format_span(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn units() {
        assert_eq!(format_us(999), "999 µs");
        assert_eq!(format_us(1_250), "1.2 ms");
        assert_eq!(format_us(2_500_000), "2.50 s");
        assert_eq!(format_bytes(1023), "1023 B");
        assert_eq!(format_bytes(3 << 19), "1.5 MiB");
    }
}
