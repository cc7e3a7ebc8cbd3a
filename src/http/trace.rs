//! W3C Trace Context: what of a caller's `traceparent` and `tracestate` is kept. What is not well-formed is ignored.

/// The most bytes of a `tracestate` that are kept.
const STATE_BYTES_MAX: usize = 512;
/// The most members a `tracestate` may have.
const STATE_MEMBERS_MAX: usize = 32;

/// Whether a `traceparent` is well-formed: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero; a later version may have more.
pub(crate) fn is_parent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((head, tail)) = bytes.split_at_checked(55) else { return false };
    let hex =
        |range: std::ops::Range<usize>| head[range].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let some = |range: std::ops::Range<usize>| head[range].iter().any(|b| *b != b'0');
    let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
    let version = &head[..2];
    let ends = match version {
        b"ff" => false,
        b"00" => tail.is_empty(),
        _ => tail.first().is_none_or(|byte| *byte == b'-'),
    };
    dashes && ends && hex(0..2) && hex(3..35) && hex(36..52) && hex(53..55) && some(3..35) && some(36..52)
}

/// Whether a `tracestate` is a list of `key=value`, at most 32 of them and 512 bytes, no key twice.
pub(crate) fn is_state(text: &str) -> bool {
    let members: Vec<_> = text.split(',').map(|member| member.trim_matches([' ', '\t'])).collect();
    let keys: Vec<_> =
        members.iter().filter_map(|member| member.split_once('=')).map(|(key, _)| key).collect();
    let filled = members.iter().filter(|member| !member.is_empty()).count();
    let unique = keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key));
    (1..=STATE_MEMBERS_MAX).contains(&filled)
        && text.len() <= STATE_BYTES_MAX
        && unique
        && members.iter().all(|member| member.is_empty() || is_member(member))
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let key_char = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let value_char = |byte: u8| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=';
    let begins = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    begins
        && key.len() <= 256
        && key.bytes().all(key_char)
        && (1..=256).contains(&value.len())
        && value.bytes().all(value_char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_has_the_form_of_the_specification() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_parent(parent));
        assert!(is_parent(&format!("cc{}", &parent[2..])));
        assert!(is_parent(&format!("cc{}-what-else", &parent[2..])));
        for wrong in [
            "",
            "00",
            &parent[1..],
            &parent.to_uppercase(),
            &format!("{parent}-more"),
            &format!("ff{}", &parent[2..]),
            &format!("cc{}x", &parent[2..]),
            &parent.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &parent.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &parent.replace('-', "_"),
            "00-4bf92f3577b34da6a3ce929d0e0e473é-0f067aa0ba902b7-01",
        ] {
            assert!(!is_parent(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_state_is_a_short_list_without_a_key_twice() {
        let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        for right in ["rojo=00f067aa0ba902b7", "a=1, b=2 ,c@d=x", "a=1,,b=2", &many(32)] {
            assert!(is_state(right), "{right}");
        }
        let long = format!("a={}", "x".repeat(600));
        for wrong in ["", ",", "a", "a=", "=b", "A=1", "a=1,a=2", "a=b=c", "a=ü", &many(33), &long] {
            assert!(!is_state(wrong), "{wrong}");
        }
    }
}
