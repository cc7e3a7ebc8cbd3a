//! The secrets of one queue at a time, and how a new one takes the place of another.

use std::time::Duration;

use crate::domain::secret::{SECRETS_MAX, SigningSecret};
use crate::domain::timestamp::Timestamp;

/// One secret of a queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The secret.
    pub secret: SigningSecret,
    /// When it ends; the newest one does not.
    pub until: Option<Timestamp>,
}

/// The secrets of a queue, the newest first: 1 to [`SECRETS_MAX`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SecretSet(Vec<Kept>);

impl SecretSet {
    /// These secrets, none of which ends.
    #[must_use]
    pub fn lasting(secrets: Vec<SigningSecret>) -> Self {
        Self(secrets.into_iter().map(|secret| Kept { secret, until: None }).collect())
    }

    /// These, as they were kept.
    #[must_use]
    pub fn of(kept: Vec<Kept>) -> Self {
        Self(kept)
    }

    /// All of them, the newest first; some may have ended.
    #[must_use]
    pub fn all(&self) -> &[Kept] {
        &self.0
    }

    /// The newest one.
    #[must_use]
    pub fn newest(&self) -> Option<&SigningSecret> {
        self.0.first().map(|kept| &kept.secret)
    }

    /// When the last of those before the newest one ends; `None` when there is none, or none that ends.
    #[must_use]
    pub fn previous_until(&self) -> Option<Timestamp> {
        self.0.iter().skip(1).filter_map(|kept| kept.until).max()
    }

    /// Lets `new` follow the newest one, which holds for `overlap` from `now`; those before it end when they would have, and no later
    /// than that. What has ended is left out. A secret that is there already becomes the newest; one that is the newest already only
    /// lets the others end sooner.
    #[must_use]
    pub fn rotated(self, new: &SigningSecret, now: Timestamp, overlap: Duration) -> Self {
        let last = now.saturating_add(overlap);
        let previous = self.0.into_iter().filter(|kept| kept.secret != *new).map(|kept| {
            let until = kept.until.map_or(last, |until| until.min(last));
            Kept { until: Some(until), ..kept }
        });
        let previous =
            previous.filter(|kept| kept.until.is_none_or(|until| until > now)).take(SECRETS_MAX - 1);
        Self([Kept { secret: new.clone(), until: None }].into_iter().chain(previous).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::secret::SecretKind;

    fn secret(number: u8) -> SigningSecret {
        SigningSecret::from_random(SecretKind::Hmac, &[number; 32])
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn shown(set: &SecretSet) -> Vec<(u8, Option<u64>)> {
        set.all()
            .iter()
            .map(|kept| (kept.secret.bytes()[0], kept.until.map(|until| until.as_millis() / 1_000)))
            .collect()
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn the_one_before_holds_for_the_overlap_and_is_left_out_after_it() {
        let set = SecretSet::default().rotated(&secret(1), at(0), MINUTE);
        assert_eq!((shown(&set), set.previous_until()), (vec![(1, None)], None));
        let set = set.rotated(&secret(2), at(100), MINUTE);
        assert_eq!((shown(&set), set.previous_until()), (vec![(2, None), (1, Some(160))], Some(at(160))));
        let set = set.rotated(&secret(3), at(130), MINUTE);
        assert_eq!(shown(&set), [(3, None), (2, Some(190)), (1, Some(160))]);
        assert_eq!(
            shown(&set.rotated(&secret(4), at(160), MINUTE)),
            [(4, None), (3, Some(220)), (2, Some(190))]
        );
    }

    #[test]
    fn an_overlap_of_nothing_ends_all_that_were_before() {
        let set = SecretSet::default().rotated(&secret(1), at(0), MINUTE).rotated(&secret(2), at(1), MINUTE);
        assert_eq!(shown(&set.clone().rotated(&secret(3), at(2), Duration::ZERO)), [(3, None)]);
        let shorter = set.rotated(&secret(3), at(2), Duration::from_secs(5));
        assert_eq!(shown(&shorter), [(3, None), (2, Some(7)), (1, Some(7))]);
    }

    #[test]
    fn the_same_secret_again_only_ends_the_others_sooner_and_an_earlier_one_comes_back() {
        let set = SecretSet::default().rotated(&secret(1), at(0), MINUTE).rotated(&secret(2), at(1), MINUTE);
        assert_eq!(set.clone().rotated(&secret(2), at(9), MINUTE), set);
        assert_eq!(shown(&set.clone().rotated(&secret(2), at(9), Duration::ZERO)), [(2, None)]);
        assert_eq!(shown(&set.rotated(&secret(1), at(9), MINUTE)), [(1, None), (2, Some(69))]);
    }

    #[test]
    fn no_more_are_kept_than_one_header_carries() {
        let set =
            (1..=9).fold(SecretSet::default(), |set, number| set.rotated(&secret(number), at(0), MINUTE));
        assert_eq!(shown(&set).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [9, 8, 7, 6]);
    }
}
