//! What the documents show is what the gateway does.

mod api;
mod errors;
mod operations;
mod readme;
mod varying;

/// A fenced block: its language and its lines.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    language: String,
    text: String,
    /// Whether only blank lines are between it and the block before.
    follows: bool,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    let mut follows = false;
    for line in markdown.lines() {
        if let Some(language) = line.strip_prefix("```") {
            if !open {
                blocks.push(Block { language: language.trim().to_owned(), text: String::new(), follows });
            }
            open = !open;
            follows = true;
        } else if open {
            let block = blocks.last_mut().expect("one was opened");
            block.text.push_str(line);
            block.text.push('\n');
        } else if !line.trim().is_empty() {
            follows = false;
        }
    }
    assert!(!open, "a block is not closed");
    blocks
}

/// The commands of a `sh` block: lines, joined where one ends with a backslash as the shell does, without comments.
fn commands(block: &str) -> Vec<String> {
    block
        .replace("\\\n", "")
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[test]
fn blocks_and_commands_are_found() {
    let text = "a\n\n```sh\ncargo run\ncurl -d x \\\n  http://a\n# no\n```\n\n```\nout\n```\ntext\n```json\n{}\n```\n";
    let found = blocks(text);
    let kinds: Vec<(&str, bool)> =
        found.iter().map(|block| (block.language.as_str(), block.follows)).collect();
    assert_eq!(kinds, [("sh", false), ("", true), ("json", false)]);
    assert_eq!(commands(&found[0].text), ["cargo run", "curl -d x   http://a"]);
    assert_eq!(found[1].text, "out\n");
}
