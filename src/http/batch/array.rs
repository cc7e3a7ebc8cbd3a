//! A batch as JSON: an array of items, each an object of known fields.

use crate::api::code::Code;
use crate::api::nearest::hint;
use crate::http::batch::walk::{LEVELS_MAX, NoJson, Walk, unescape};
use crate::http::error::Refusal;
use crate::http::extract::shown;
use crate::http::pace::Pace;

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident $name:literal;)*) => {
        /// A field of an item.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Field {
            $($(#[$doc])* $field,)*
        }

        /// Their names; a field's place is its number.
        const NAMES: &[&str] = &[$($name,)*];

        const ALL: &[Field] = &[$(Field::$field,)*];
    };
}

fields! {
    /// The payload as text.
    Payload "payload";
    /// The payload as JSON.
    PayloadJson "payload_json";
    /// The payload in base64.
    PayloadBase64 "payload_base64";
    /// Its media type.
    ContentType "content_type";
    /// Headers to forward.
    Headers "headers";
    /// A delay.
    Delay "delay";
    /// A moment.
    DeliverAt "deliver_at";
    /// A time to live.
    Ttl "ttl";
    /// A priority.
    Priority "priority";
    /// Attempts allowed.
    MaxAttempts "max_attempts";
    /// A destination.
    Destination "destination";
    /// A method of delivery.
    Method "method";
    /// The time-out of an attempt.
    Timeout "timeout";
    /// W3C trace context.
    Traceparent "traceparent";
    /// An idempotency key of its own.
    IdempotencyKey "idempotency_key";
}

impl Field {
    /// Its name in JSON.
    pub(super) const fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

/// An item as it is in the body: the bytes of each field's value.
#[derive(Debug, Default)]
pub(super) struct Fields<'b>([Option<&'b [u8]>; NAMES.len()]);

impl<'b> Fields<'b> {
    /// The value of a field: valid JSON, without blanks around it.
    pub(super) fn value(&self, field: Field) -> Option<&'b [u8]> {
        self.0[field as usize]
    }
}

/// Names the field of an item that a refusal is about.
pub(super) fn pointer(index: u64, field: Field) -> String {
    format!("/{index}/{}", field.name())
}

/// The items of a body.
pub(super) struct Array<'b> {
    walk: Walk<'b>,
    index: u64,
    /// Whether it is within an item, and not before, between or behind them.
    is_within: bool,
    is_over: bool,
}

impl<'b> Array<'b> {
    /// Of this body.
    pub(super) fn new(body: &'b [u8]) -> Self {
        // The array, the item, and what a payload may have.
        Self { walk: Walk::new(body, LEVELS_MAX), index: 0, is_within: false, is_over: false }
    }

    /// The next item, or why it is none; `None` at the end.
    ///
    /// # Errors
    /// The body is no array, or no JSON from here on: nothing that follows can be told.
    pub(super) async fn next(
        &mut self,
        pace: &mut Pace,
    ) -> Result<Option<Result<Fields<'b>, Refusal>>, Refusal> {
        if self.is_over {
            return Ok(None);
        }
        let is_first = self.walk.at() == 0;
        if is_first {
            self.open(pace).await?;
        }
        let found = self.element(is_first, pace).await;
        let found = found.map_err(|wrong| {
            let refusal = no_json(wrong);
            if self.is_within { refusal.index(self.index) } else { refusal }
        })?;
        self.is_within = false;
        self.index += u64::from(found.is_some());
        Ok(found)
    }

    async fn open(&mut self, pace: &mut Pace) -> Result<(), Refusal> {
        self.walk.blanks(pace).await;
        if self.walk.take(b'[') {
            return Ok(());
        }
        match self.walk.value(pace).await {
            Ok(_) => {
                let detail =
                    "a batch as application/json is an array of items, like [{\"payload\":\"hello\"}]";
                Err(Refusal::new(Code::InvalidValue, detail).pointer(""))
            }
            Err(wrong) => Err(no_json(wrong)),
        }
    }

    async fn element(
        &mut self,
        is_first: bool,
        pace: &mut Pace,
    ) -> Result<Option<Result<Fields<'b>, Refusal>>, NoJson> {
        self.walk.blanks(pace).await;
        if self.walk.take(b']') {
            self.is_over = true;
            self.walk.blanks(pace).await;
            return match self.walk.next() {
                None => Ok(None),
                Some(_) => Err(self.walk.wrong("something follows the array")),
            };
        }
        if !is_first {
            if !self.walk.take(b',') {
                return Err(self.walk.wrong("a comma or ] is expected"));
            }
            self.walk.blanks(pace).await;
        }
        self.is_within = self.walk.next().is_some();
        if self.walk.take(b'{') {
            return self.item(pace).await.map(Some);
        }
        self.walk.value(pace).await?;
        let detail = "an item is an object, like {\"payload\":\"hello\"}";
        Ok(Some(Err(Refusal::new(Code::InvalidValue, detail).pointer(format!("/{}", self.index)))))
    }

    /// The rest of an item, read to its end also where something is wrong with it.
    async fn item(&mut self, pace: &mut Pace) -> Result<Result<Fields<'b>, Refusal>, NoJson> {
        let (mut fields, mut refusal) = (Fields::default(), None);
        self.walk.blanks(pace).await;
        if self.walk.take(b'}') {
            return Ok(Ok(fields));
        }
        loop {
            self.walk.blanks(pace).await;
            let name = self.walk.key(pace).await?;
            let name = self.walk.part(name.start + 1..name.end - 1);
            self.walk.blanks(pace).await;
            let value = self.walk.value(pace).await?;
            match field(name, self.index, pace).await {
                _ if refusal.is_some() => {}
                Ok(field) => {
                    let before = fields.0[field as usize].replace(self.walk.part(value));
                    refusal = before.map(|_| twice(field, self.index));
                }
                Err(unknown) => refusal = Some(unknown),
            }
            self.walk.blanks(pace).await;
            if self.walk.take(b'}') {
                return Ok(refusal.map_or(Ok(fields), Err));
            }
            if !self.walk.take(b',') {
                return Err(self.walk.wrong("a comma or } is expected"));
            }
        }
    }
}

/// The field of this name, as it is between the quotes.
async fn field(raw: &[u8], index: u64, pace: &mut Pace) -> Result<Field, Refusal> {
    let known = |name: &[u8]| NAMES.iter().position(|known| known.as_bytes() == name).map(|place| ALL[place]);
    if let Some(field) = known(raw) {
        return Ok(field);
    }
    let name = unescape(raw, pace).await;
    if let Some(field) = known(&name) {
        return Ok(field);
    }
    // No name of a field is as long as what is shown.
    let name = String::from_utf8_lossy(&name[..name.len().min(512)]);
    let (shown, hint) = (shown(&name), hint(&name, NAMES.iter().copied()));
    let detail = format!("{shown:?} is not a field of an item{hint}");
    let pointer = crate::api::json::pointer(&format!("/{index}"), &shown);
    Err(Refusal::new(Code::UnknownField, detail).pointer(pointer))
}

fn twice(field: Field, index: u64) -> Refusal {
    let detail = format!("the item has {:?} twice", field.name());
    Refusal::new(Code::Malformed, detail).pointer(pointer(index, field))
}

fn no_json(NoJson { at, what }: NoJson) -> Refusal {
    Refusal::new(Code::Malformed, format!("the body is no JSON at its byte {at}: {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::http::batch::tests::block_on;

    /// The fields that are there.
    type Named<'b> = Vec<(&'static str, &'b [u8])>;

    /// What is found of each item, until the body cannot be read on.
    fn read(body: &[u8]) -> (Vec<Result<Named<'_>, Refusal>>, Option<Refusal>) {
        block_on(async {
            let (mut array, mut pace, mut found) = (Array::new(body), Pace::default(), Vec::new());
            loop {
                match array.next(&mut pace).await {
                    Ok(None) => return (found, None),
                    Ok(Some(item)) => found.push(item.map(|fields| {
                        let there =
                            ALL.iter().filter_map(|field| Some((field.name(), fields.value(*field)?)));
                        there.collect()
                    })),
                    Err(refusal) => return (found, Some(refusal)),
                }
            }
        })
    }

    #[test]
    fn items_are_found_with_the_bytes_of_their_fields() {
        let body = br#" [ {"payload" : "a\n" , "ttl":"1s"} , {} ,{"payload_json":{ "a" : [1 ,2]},"p\u0061yload_base64":"YQ=="}] "#;
        let (items, end) = read(body);
        assert!(end.is_none());
        let items: Vec<_> = items.into_iter().map(|item| item.expect("an item")).collect();
        assert_eq!(
            items,
            [
                vec![("payload", &br#""a\n""#[..]), ("ttl", br#""1s""#)],
                vec![],
                vec![("payload_json", br#"{ "a" : [1 ,2]}"#), ("payload_base64", br#""YQ==""#)],
            ]
        );
        assert!(matches!(read(b"[]"), (items, None) if items.is_empty()));
        assert!(matches!(read(b" [ ] \n"), (items, None) if items.is_empty()));
    }

    #[test]
    fn a_wrong_item_is_named_and_the_next_is_read() {
        let body = br#"[1,{"paylaod":"x","payload":"y"},{"ttl":"1s","ttl":"2s"},{"payload":"z"}]"#;
        let (items, end) = read(body);
        assert!(end.is_none());
        for (index, (code, pointer, words)) in [
            (Code::InvalidValue, "/0", "is an object"),
            (Code::UnknownField, "/1/paylaod", "did you mean \"payload\"?"),
            (Code::Malformed, "/2/ttl", "\"ttl\" twice"),
        ]
        .into_iter()
        .enumerate()
        {
            let refusal = items[index].as_ref().expect_err("wrong");
            assert_eq!((refusal.code(), refusal.problem().pointer.as_deref()), (code, Some(pointer)));
            assert!(refusal.problem().detail.contains(words), "{refusal:?}");
        }
        assert!(items[3].is_ok());
    }

    #[test]
    fn a_body_that_is_no_array_is_refused_where_it_ends_to_be_one() {
        for (body, code, index, words) in [
            ("", Code::Malformed, None, "byte 0: it ends too early"),
            ("{}", Code::InvalidValue, None, "is an array"),
            ("\"x\"", Code::InvalidValue, None, "is an array"),
            ("{", Code::Malformed, None, "byte 1"),
            ("\u{feff}[]", Code::Malformed, None, "byte order mark"),
            ("[", Code::Malformed, None, "byte 1: it ends too early"),
            ("[{}", Code::Malformed, None, "byte 3: it ends too early"),
            ("[{},]", Code::Malformed, Some(1), "a value is expected"),
            ("[{}]]", Code::Malformed, None, "follows the array"),
            ("[{} {}]", Code::Malformed, None, "a comma or ]"),
            ("[{},{\"payload\":\"\\ud800\"}]", Code::Malformed, Some(1), "lone surrogate"),
            ("[{\"a\" 1}]", Code::Malformed, Some(0), "a colon"),
            ("[{\"a\":1 \"b\"}]", Code::Malformed, Some(0), "a comma or }"),
        ] {
            let (_, end) = read(body.as_bytes());
            let refusal = end.expect(body);
            assert_eq!((refusal.code(), refusal.problem().index), (code, index), "{body}");
            assert!(refusal.problem().detail.contains(words), "{body}: {refusal:?}");
        }
        let (_, end) = read(&b"[".repeat(1_000_000));
        assert!(end.expect("too deep").problem().detail.contains("128 levels"));
        let long = format!("[{{\"{}\":1}}]", "x".repeat(1_000_000));
        let (items, _) = read(long.as_bytes());
        assert!(items[0].as_ref().expect_err("unknown").problem().detail.len() < 300);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in r#"\[[\[\]{}:,"a1 \\]{0,40}"#, cut in any::<u8>()) {
            let mut bytes = body.into_bytes();
            drop(read(&bytes));
            let at = usize::from(cut) % bytes.len();
            bytes[at] = cut;
            drop(read(&bytes));
        }

        #[test]
        fn what_was_written_is_read(
            texts in prop::collection::vec((".{0,12}", any::<i32>()), 0..8),
            pretty: bool,
        ) {
            let items: Vec<Value> =
                texts.iter().map(|(text, number)| json!({"payload": text, "payload_json": [number, text]})).collect();
            let items = Value::from(items);
            let body = if pretty { serde_json::to_string_pretty(&items).expect("JSON") } else { items.to_string() };
            let (found, end) = read(body.as_bytes());
            prop_assert!(end.is_none());
            let found: Vec<Value> = found.into_iter().map(|item| {
                let fields = item.expect("an item").into_iter();
                fields.map(|(name, value)| (name.to_owned(), serde_json::from_slice(value).expect("JSON"))).collect::<serde_json::Map<_, _>>().into()
            }).collect();
            prop_assert_eq!(Value::from(found), items);
        }
    }
}
