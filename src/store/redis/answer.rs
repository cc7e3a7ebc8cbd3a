//! Reading what a script gave.

use bytes::Bytes;
use redis::Value;

use crate::domain::timestamp::Timestamp;
use crate::store::error::StoreError;

/// The elements of an answer, in order.
pub(super) struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    /// The elements of an array.
    pub(super) fn of(value: Value) -> Result<Self, StoreError> {
        match value.extract_error() {
            Ok(Value::Array(elements)) => Ok(Self(elements.into_iter())),
            Ok(_) => Err(unexpected()),
            Err(error) => Err(StoreError::Internal(format!("Redis: {error}"))),
        }
    }

    /// The elements behind the first one, which says how it went.
    ///
    /// # Errors
    /// [`StoreError::Gone`] when the queue of that generation is no more.
    pub(super) fn ok(value: Value) -> Result<Self, StoreError> {
        let mut answer = Self::of(value)?;
        match &*answer.bytes()? {
            b"ok" => Ok(answer),
            b"gone" => Err(StoreError::Gone),
            _ => Err(unexpected()),
        }
    }

    /// The next element as bytes.
    pub(super) fn bytes(&mut self) -> Result<Bytes, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes.into()),
            Some(Value::SimpleString(text)) => Ok(text.into_bytes().into()),
            Some(Value::Int(number)) => Ok(number.to_string().into_bytes().into()),
            Some(Value::Nil) => Ok(Bytes::new()),
            _ => Err(unexpected()),
        }
    }

    /// The next element as text.
    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| unexpected())
    }

    /// The next element as a number that is not negative; what is no number is 0.
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        match self.0.next() {
            Some(Value::Int(number)) => Ok(number.try_into().unwrap_or_default()),
            Some(Value::BulkString(bytes)) => Ok(read_number(&bytes)),
            Some(_) => Ok(0),
            None => Err(unexpected()),
        }
    }

    /// The next element as a moment.
    pub(super) fn moment(&mut self) -> Result<Timestamp, StoreError> {
        self.number().map(Timestamp::from_millis)
    }

    /// The next element as a moment; `None` when it is 0.
    pub(super) fn moment_or_none(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(Some(self.moment()?).filter(|moment| moment.as_millis() > 0))
    }

    /// The next element as yes or no.
    pub(super) fn yes(&mut self) -> Result<bool, StoreError> {
        self.number().map(|number| number == 1)
    }

    /// How many elements are left.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }
}

/// A number as Redis writes it; scores may have a fraction, which is left out. What is none is 0.
pub(super) fn read_number(bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or_else(|| {
        // A score beyond 2^53 comes with an exponent.
        let float = text.parse::<f64>().unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
        let number = float as u64;
        number
    })
}

/// A counter or gauge as our scripts write it, and 0 where none is; `None` for what somebody else wrote.
pub(super) fn read_count(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return Some(0);
    }
    let text =
        std::str::from_utf8(bytes).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|number| *number < 1 << 53)
}

/// An answer that no script of ours gives.
pub(super) fn unexpected() -> StoreError {
    StoreError::Internal("Redis gave an answer of another shape than our script does".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn what_scripts_and_commands_give_is_read_in_order() {
        let elements = vec![
            bulk("ok"),
            bulk("text"),
            Value::Int(7),
            bulk("8"),
            Value::Int(0),
            Value::Int(1),
            Value::Nil,
        ];
        let mut answer = Answer::ok(Value::Array(elements)).expect("it went well");
        assert_eq!(answer.left(), 6);
        assert_eq!(answer.text(), Ok("text".to_owned()));
        assert_eq!(answer.number(), Ok(7));
        assert_eq!(answer.moment(), Ok(Timestamp::from_millis(8)));
        assert_eq!(answer.moment_or_none(), Ok(None));
        assert_eq!(answer.yes(), Ok(true));
        assert_eq!(answer.bytes(), Ok(Bytes::new()));
        assert_eq!(answer.number(), Err(unexpected()));
        assert_eq!(answer.bytes(), Err(unexpected()));
    }

    #[test]
    fn a_queue_that_is_gone_and_an_answer_of_another_shape_are_errors() {
        let error = |value| Answer::ok(value).err();
        assert_eq!(error(Value::Array(vec![bulk("gone")])), Some(StoreError::Gone));
        assert_eq!(error(Value::Array(vec![bulk("who knows")])), Some(unexpected()));
        assert_eq!(error(Value::Array(Vec::new())), Some(unexpected()));
        assert_eq!(error(Value::Int(1)), Some(unexpected()));
        let mut nested = Answer::of(Value::Array(vec![Value::Array(Vec::new())])).expect("an array");
        assert_eq!(nested.bytes(), Err(unexpected()));
    }

    #[test]
    fn numbers_are_read_however_redis_writes_them() {
        for (text, number) in
            [("0", 0), ("17", 17), ("1700000000000.5", 1_700_000_000_000), ("-3", 0), ("", 0), ("junk", 0)]
        {
            assert_eq!(read_number(text.as_bytes()), number, "{text}");
        }
        assert_eq!(read_number(b"1e+17"), 100_000_000_000_000_000);
        assert_eq!(read_number(b"inf"), u64::MAX);
        assert_eq!(read_number(&[0xFF, 0xFE]), 0);
        assert_eq!((read_count(b""), read_count(b"17")), (Some(0), Some(17)));
        for junk in ["nan", "inf", "0x10", "1e3", "-3", "+3", " 3", "3.0", "9007199254740992"] {
            assert_eq!(read_count(junk.as_bytes()), None, "{junk}");
        }
    }
}
