//! The known name that a wrong one was probably meant to be.

/// The known name most like `wrong`, if any is like it at all: for "did you mean …".
///
/// Alike means a Jaro-Winkler similarity of at least 0.75, or one letter too many, too few, wrong, or exchanged with the
/// next, whatever their case.
#[must_use]
pub fn nearest<'n>(wrong: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // What is longer is no slip of the pen, and comparing costs the product of both lengths.
    const WRONG_BYTES_MAX: usize = 128;
    if wrong.len() > WRONG_BYTES_MAX {
        return None;
    }
    let wrong = wrong.to_ascii_lowercase();
    let mut best = None;
    for name in known {
        let known = name.to_ascii_lowercase();
        let one_slip = if strsim::osa_distance(&wrong, &known) <= 1 { 0.9 } else { 0.0 };
        let similarity = strsim::jaro_winkler(&wrong, &known).max(one_slip);
        if similarity >= 0.75 && best.is_none_or(|(most, _)| similarity > most) {
            best = Some((similarity, name));
        }
    }
    best.map(|(_, name)| name)
}

/// `; did you mean "…"?`, or nothing.
#[must_use]
pub fn hint<'n>(wrong: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    nearest(wrong, known).map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_its_name_and_anything_else_none() {
        let known = ["Posthaste-Delay", "Posthaste-Deliver-At", "Posthaste-TTL"];
        assert_eq!(nearest("posthaste-dealy", known), Some("Posthaste-Delay"));
        assert_eq!(nearest("POSTHASTE-DELIVER", known), Some("Posthaste-Deliver-At"));
        assert_eq!(nearest("ttl", ["ttl", "timeout"]), Some("ttl"));
        assert_eq!(nearest("lgo", ["http", "log", "pull"]), Some("log"));
        assert_eq!(nearest("quux", ["timeout", "lease"]), None);
        assert_eq!(nearest(&"timeout".repeat(50), ["timeout"]), None);
        assert_eq!(hint("tmeout", ["timeout"]), "; did you mean \"timeout\"?");
    }
}
