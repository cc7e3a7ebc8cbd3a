//! Each line a message: sent in batches, each of which is stored whole or not at all.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::time::Instant;

use bytes::Bytes;
use indicatif::ProgressBar;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Arguments, PAYLOAD_BYTES_MAX};
use crate::cli::client::{Client, Publication};
use crate::cli::output::{give, give_json};
use crate::cli::{Exit, Failure, progress, say};
use crate::domain::id::MessageId;

/// Bytes of lines in one batch: in base64, with what is around each line, they stay below the 8 MiB that a gateway takes by default.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What is read of a line at most: the largest payload, and the end of the line.
const LINE_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX + 2;

/// A line that is not blank.
struct Line {
    number: u64,
    bytes: Bytes,
}

/// Lines as they come.
struct Lines {
    reader: BufReader<File>,
    /// Lines read so far, blank ones too.
    number: u64,
    bytes_read: u64,
    /// Read for a batch that had no room for it.
    left_over: Option<Line>,
    messages_max: usize,
    /// Whether a batch waits until it is full, so that the same lines give the same batches.
    fills: bool,
}

impl Lines {
    fn next_batch(&mut self) -> Result<Vec<Line>, Failure> {
        let mut batch: Vec<Line> = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.messages_max {
            if self.left_over.is_none() && !batch.is_empty() && !self.fills && !self.has_more_at_once() {
                break;
            }
            let next = match self.left_over.take() {
                Some(line) => Some(line),
                None => self.next()?,
            };
            let Some(line) = next else { break };
            if !batch.is_empty() && bytes + line.bytes.len() > BATCH_BYTES_MAX {
                self.left_over = Some(line);
                break;
            }
            bytes += line.bytes.len();
            batch.push(line);
        }
        Ok(batch)
    }

    /// The next line that is not blank, without its end.
    fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let read = read.map_err(|error| Failure::failed(format!("the lines cannot be read: {error}")))?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.bytes_read += read as u64;
            if line.last() == Some(&b'\n') {
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
            }
            if line.len() as u64 > PAYLOAD_BYTES_MAX {
                let words = format!("line {} has more than 16 MiB, which no queue takes", self.number);
                return Err(Failure::new(Exit::Usage, words));
            }
            if !line.is_empty() {
                return Ok(Some(Line { number: self.number, bytes: line.into() }));
            }
        }
    }

    /// Whether there is something to read without waiting for it: a line is not held back until others come.
    fn has_more_at_once(&self) -> bool {
        if !self.reader.buffer().is_empty() {
            return true;
        }
        let mut readable = [PollFd::new(self.reader.get_ref().as_fd(), PollFlags::POLLIN)];
        // What cannot be asked is read.
        poll(&mut readable, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
    }
}

/// What became of the lines so far.
struct Progress {
    bar: ProgressBar,
    began: Instant,
    published: u64,
    duplicates: u64,
    /// Whether somebody still reads the ids; the lines are published all the same.
    is_read: bool,
}

impl Progress {
    /// A bar on stderr where that is a terminal, by bytes where their number is known.
    fn begin(bytes: Option<u64>) -> Self {
        Self { bar: progress::bar(bytes), began: Instant::now(), published: 0, duplicates: 0, is_read: true }
    }

    fn add(
        &mut self,
        ids: &[MessageId],
        is_duplicate: bool,
        json: Option<&str>,
        bytes_read: u64,
    ) -> Result<(), Failure> {
        self.published += ids.len() as u64;
        if is_duplicate {
            self.duplicates += ids.len() as u64;
        }
        if self.is_read {
            let printed = self.bar.suspend(|| match json {
                Some(text) => give_json(text),
                None => {
                    give(&ids.iter().flat_map(|id| [id.to_string(), "\n".to_owned()]).collect::<String>())
                }
            });
            match printed {
                Err(failure) if failure.exit == Exit::Done => self.is_read = false,
                printed => printed?,
            }
        }
        self.bar.set_message(format!("{} published", self.published));
        self.bar.set_position(bytes_read);
        Ok(())
    }

    fn end(&self, queue: &str) {
        self.bar.finish_and_clear();
        let before = match self.duplicates {
            0 => String::new(),
            some => format!(", {some} of them before"),
        };
        let seconds = self.began.elapsed().as_secs_f64();
        say(&format!("{} messages are published to {queue}{before}, in {seconds:.1} s", self.published));
    }
}

/// Publishes every line of the source.
pub(super) fn publish(
    arguments: &Arguments,
    client: &Client,
    publication: &Publication,
) -> Result<(), Failure> {
    let source = arguments.source()?;
    let bytes = source.metadata().ok().filter(std::fs::Metadata::is_file).map(|known| known.len());
    let mut lines = Lines {
        reader: BufReader::with_capacity(64 << 10, source),
        number: 0,
        bytes_read: 0,
        left_over: None,
        messages_max: arguments.batch,
        fills: bytes.is_some() || arguments.has_key(),
    };
    let mut progress = Progress::begin(bytes);
    for number in 1_u64.. {
        let batch = lines.next_batch()?;
        if batch.is_empty() {
            break;
        }
        if let Err(failure) =
            send(arguments, client, publication, number, &batch, &mut progress, lines.bytes_read)
        {
            progress.bar.finish_and_clear();
            return Err(told(failure, &batch, publication, lines.fills));
        }
    }
    progress.end(arguments.queue.as_str());
    Ok(())
}

fn send(
    arguments: &Arguments,
    client: &Client,
    publication: &Publication,
    number: u64,
    batch: &[Line],
    progress: &mut Progress,
    bytes_read: u64,
) -> Result<(), Failure> {
    let key = publication.key.as_ref().map(|key| format!("{key}.{number}"));
    let publication = Publication { key, ..publication.clone() };
    let queue = &arguments.queue;
    let payloads: Vec<Bytes> = batch.iter().map(|line| line.bytes.clone()).collect();
    let again = |cause: &str| progress.bar.suspend(|| say(cause));
    // A line that is larger than a batch goes alone, as any message of its size.
    if let [payload] = payloads.as_slice()
        && payload.len() > BATCH_BYTES_MAX
    {
        let publish = async || client.publish(queue, &publication, payload.clone()).await;
        let published = arguments.again.until_known(client, &again, &publish)?;
        let json = arguments.json.then_some(published.text.as_str());
        return progress.add(&[published.id], published.duplicate, json, bytes_read);
    }
    let publish = async || client.publish_batch(queue, &publication, &payloads).await;
    let published = arguments.again.until_known(client, &again, &publish)?;
    let json = arguments.json.then_some(published.text.as_str());
    progress.add(&published.ids, published.duplicate, json, bytes_read)
}

/// A failure, with what it means for the lines.
fn told(failure: Failure, batch: &[Line], publication: &Publication, fills: bool) -> Failure {
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return failure };
    let at_fault = failure.index.and_then(|index| batch.get(usize::try_from(index).ok()?));
    let at_fault = at_fault.map(|line| format!("\n  line: {}", line.number)).unwrap_or_default();
    let (first, last) = (first.number, last.number);
    let rest = match (failure.may_be_stored, &publication.key) {
        (false, _) => "nothing from it on".to_owned(),
        (true, Some(key)) if fills => {
            format!("of {first} to {last} nobody knows; the same again with --key {key} stores no line twice")
        }
        (true, _) => format!("of {first} to {last} nobody knows"),
    };
    let words = format!("{failure}{at_fault}\n  published: all before line {first}, {rest}");
    Failure { words, ..failure }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn lines(text: &[u8], messages_max: usize) -> Lines {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text).and_then(|()| file.rewind()).expect("a text");
        let reader = BufReader::new(file);
        Lines { reader, number: 0, bytes_read: 0, left_over: None, messages_max, fills: true }
    }

    fn batches(mut lines: Lines) -> Vec<Vec<(u64, usize)>> {
        let mut batches = Vec::new();
        loop {
            let batch = lines.next_batch().expect("readable");
            if batch.is_empty() {
                return batches;
            }
            batches.push(batch.iter().map(|line| (line.number, line.bytes.len())).collect());
        }
    }

    #[test]
    fn blank_lines_are_skipped_and_counted_and_the_last_needs_no_end() {
        let read = batches(lines(b"a\r\n\n\r\nbb\nccc", 2));
        assert_eq!(read, [vec![(1, 1), (4, 2)], vec![(5, 3)]]);
        assert!(batches(lines(b"\n\n", 2)).is_empty());
    }

    #[test]
    fn a_batch_has_a_bound_of_bytes_and_a_larger_line_goes_alone() {
        let mut text = vec![b'x'; 3 << 20];
        text.extend(
            [b"\n".as_slice(), &vec![b'y'; 2 << 20], b"\nz\n", &vec![b'w'; 5 << 20], b"\nz"].concat(),
        );
        let read = batches(lines(&text, 1_000));
        assert_eq!(read, [vec![(1, 3 << 20)], vec![(2, 2 << 20), (3, 1)], vec![(4, 5 << 20)], vec![(5, 1)]]);
    }

    #[test]
    fn a_line_that_no_queue_takes_ends_it() {
        let largest = vec![b'x'; 16 << 20];
        assert_eq!(batches(lines(&[&largest[..], b"\r\nx"].concat(), 1)).len(), 2);
        let mut larger = lines(&[&largest[..], b"x\nx"].concat(), 1);
        let failure = larger.next_batch().err().expect("too large");
        assert!(failure.words.contains("line 1"), "{}", failure.words);
    }
}
