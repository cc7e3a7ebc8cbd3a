//! The table of errors: each code once, with its status, its title and what the caller may do next.

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// The code.
    pub code: Code,
    /// Its word in answers: stable within version 1.
    pub word: &'static str,
    /// The HTTP status it comes with.
    pub status: u16,
    /// What it means, in a few words; the same in every answer.
    pub title: &'static str,
    /// Whether the same request may succeed later without a change.
    pub retryable: bool,
    /// The shortest wait before that, seconds; the answer spreads it to twice as much. 0: no `Retry-After`.
    pub retry_after_s: u16,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident $word:literal $status:literal $title:literal $retryable:literal $after:literal;)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code {
            $($(#[$doc])* $code,)*
        }

        /// Every error there is; a code's place is its number.
        pub const CODES: &[Row] = &[$(Row {
            code: Code::$code, word: $word, status: $status, title: $title, retryable: $retryable, retry_after_s: $after,
        },)*];
    };
}

codes! {
    /// No JSON, or a key twice.
    Malformed "malformed" 400 "The request cannot be read" false 0;
    /// A value of the wrong form, or out of its range.
    InvalidValue "invalid_value" 400 "A value is not valid" false 0;
    /// A field that does not exist.
    UnknownField "unknown_field" 400 "A field is not known" false 0;
    /// A query parameter that does not exist.
    UnknownParameter "unknown_parameter" 400 "A query parameter is not known" false 0;
    /// A `Posthaste-*` header that does not exist.
    UnknownHeader "unknown_header" 400 "A Posthaste header is not known" false 0;
    /// Something said twice, or two things that exclude one another.
    ContradictoryOptions "contradictory_options" 400 "Options contradict one another" false 0;
    /// No queue can have this name.
    InvalidQueueName "invalid_queue_name" 400 "This is not the name of a queue" false 0;
    /// No such path.
    RouteUnknown "route_unknown" 404 "There is nothing at this path" false 0;
    /// No such queue.
    QueueUnknown "queue_unknown" 404 "There is no such queue" false 0;
    /// No such message, or it left the history.
    MessageUnknown "message_unknown" 404 "There is no such message" false 0;
    /// The path is there, the method is not.
    MethodNotAllowed "method_not_allowed" 405 "The method is not allowed here" false 0;
    /// The body was too slow.
    RequestTimeout "request_timeout" 408 "The body did not arrive in time" true 0;
    /// Nothing says how long the body is.
    LengthRequired "length_required" 411 "The body has no length" false 0;
    /// A message's record can be found by id only while its queue keeps an index, and this one does not.
    LookupOff "lookup_off" 409 "The queue keeps no index of its messages" false 0;
    /// A worker or consumer has the message.
    MessageLeased "message_leased" 409 "The message is being worked on" true 0;
    /// The message was delivered or cancelled, or is dead.
    MessageFinished "message_finished" 409 "The message has ended" false 0;
    /// The operator's file has the say.
    QueueDeclaredInFile "queue_declared_in_file" 409 "The queue is declared in the configuration file" false 0;
    /// The queue holds messages, and its deletion was not forced.
    QueueNotEmpty "queue_not_empty" 409 "The queue holds messages" false 0;
    /// Its messages are not for consumers.
    QueueNotPull "queue_not_pull" 409 "Nobody can pull from this queue" false 0;
    /// The body is larger than allowed.
    PayloadTooLarge "payload_too_large" 413 "The body is too large" false 0;
    /// The batch has more bytes or messages than allowed.
    BatchTooLarge "batch_too_large" 413 "The batch is too large" false 0;
    /// The request's target is longer than allowed.
    UriTooLong "uri_too_long" 414 "The request target is too long" false 0;
    /// The body is of the wrong type.
    UnsupportedMediaType "unsupported_media_type" 415 "The body has the wrong type" false 0;
    /// The body is compressed.
    UnsupportedContentEncoding "unsupported_content_encoding" 415 "Encoded bodies are not accepted" false 0;
    /// The key stands for something else.
    IdempotencyKeyReused "idempotency_key_reused" 422 "The idempotency key was used for another message" false 0;
    /// The egress guard does not let it through.
    DestinationRefused "destination_refused" 422 "The destination may not be reached" false 0;
    /// The queue does not take destinations from messages.
    DestinationNotAllowed "destination_not_allowed" 422 "The queue takes no destinations from messages" false 0;
    /// A header that is never, or not in this queue, passed on.
    HeaderNotForwardable "header_not_forwardable" 422 "The header cannot be forwarded" false 0;
    /// A setting that cannot be.
    SettingOutOfRange "setting_out_of_range" 422 "A setting is out of its range" false 0;
    /// A secret that cannot be kept: no master key; or that does not come by this way.
    SecretNeedsFile "secret_needs_file" 422 "The secret needs a file, or a master key to be kept with" false 0;
    /// More headers, or more bytes of them, than allowed.
    HeadTooLarge "head_too_large" 431 "The request's head is too large" false 0;
    /// The queue is at a limit.
    QueueFull "queue_full" 429 "The queue is full" true 2;
    /// A defect.
    Internal "internal" 500 "The gateway failed" false 0;
    /// A delivery of this very store came back to it.
    LoopDetected "loop_detected" 508 "The message was delivered back to its own store" false 0;
    /// The store cannot be reached.
    StoreUnavailable "store_unavailable" 503 "The store cannot be reached" true 2;
    /// The store has no room.
    StoreFull "store_full" 503 "The store is full" true 5;
    /// The store does not keep what was promised.
    NotDurable "not_durable" 503 "The store is not durable as configured" true 5;
    /// Too much at once.
    Overloaded "overloaded" 503 "The gateway is overloaded" true 1;
    /// The gateway is about to end.
    ShuttingDown "shutting_down" 503 "The gateway is shutting down" true 1;
    /// It is not known whether the store kept it.
    StoreTimeout "store_timeout" 503 "The store did not confirm in time" true 1;
}

impl Code {
    /// Its row in the table.
    #[must_use]
    pub const fn row(self) -> &'static Row {
        &CODES[self as usize]
    }

    /// Its word in answers.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.row().word
    }

    /// The HTTP status it comes with.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().status
    }

    /// The code with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        CODES.iter().find(|row| row.word == word).map(|row| row.code)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_codes_place_is_its_number_and_words_are_unique() {
        for (place, row) in CODES.iter().enumerate() {
            assert_eq!(row.code as usize, place, "{}", row.word);
            assert_eq!(Code::from_word(row.word), Some(row.code));
        }
        let words: HashSet<_> = CODES.iter().map(|row| row.word).collect();
        assert_eq!(words.len(), CODES.len());
        assert_eq!(Code::from_word("no_such_code"), None);
    }

    #[test]
    fn whatever_says_wait_may_be_tried_again_and_little_else() {
        for row in CODES {
            let waits = matches!(row.status, 429 | 503);
            assert_eq!(row.retry_after_s > 0, waits, "{}", row.word);
            let may_end = row.status == 408 || row.code == Code::MessageLeased;
            assert_eq!(row.retryable, waits || may_end, "{}", row.word);
        }
    }
}
