//! What a message says of itself at the begin of its payload: its number, and when it was due.

use std::time::Duration;

/// Bytes of a stamp: ten digits, a blank, twenty digits, a blank.
pub(super) const STAMP_BYTES: usize = 32;

/// Writes one: a number, and when the message was due, from the begin of all.
pub(super) fn write(bytes: &mut [u8], number: u64, due: Duration) {
    let text = format!("{:010} {:020} ", number % 10_000_000_000, due.as_nanos());
    bytes.copy_from_slice(text.as_bytes());
}

/// Reads one from the begin of a payload.
pub(super) fn read(payload: &[u8]) -> Option<(u64, Duration)> {
    let text = std::str::from_utf8(payload.get(..STAMP_BYTES)?).ok()?;
    let mut words = text.split(' ');
    let number = words.next()?.parse().ok()?;
    Some((number, Duration::from_nanos(words.next()?.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written_and_nothing_else_is_one() {
        let mut payload = vec![b'x'; STAMP_BYTES + 5];
        assert_eq!(read(&payload), None);
        write(&mut payload[..STAMP_BYTES], 17, Duration::from_millis(1_500));
        assert_eq!(read(&payload), Some((17, Duration::from_millis(1_500))));
        assert_eq!(read(&payload[..STAMP_BYTES - 1]), None);
    }
}
