//! Files from outside with damage done at random: a result, or an error that says what and where; never a panic, endless
//! work, more memory than sixteen times the files and a megabyte, or a way out of the folder.

mod adapters;
mod damage;
mod data;
mod models;

use crate::allocations::peak;
use damage::{Random, damage};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Files of one folder that belong together: name and contents.
type Files = Vec<(String, Vec<u8>)>;

/// What is opened, and how.
trait Kind {
    /// Sound files; those that are damaged first.
    fn files(&self, random: &mut Random) -> (Files, usize);

    /// Opens them, which is what memory is counted of.
    fn open(&mut self, folder: &Path) -> eckart::Result<()>;

    /// Uses what was opened last: nothing that follows from the files' contents may panic.
    fn try_out(&mut self, _folder: &Path) {}

    /// The most bytes for each of the files', and beyond that.
    fn allowance(&self) -> [usize; 2] {
        [16, 1 << 20]
    }
}

/// What has become of the files of one kind.
#[derive(Debug, Default)]
struct Count {
    tries: u64,
    opened: u64,
    slowest: Duration,
    /// Most bytes held at once.
    most: usize,
}

fn kinds() -> Vec<(&'static str, Box<dyn Kind>)> {
    vec![
        ("weights and sizes", Box::new(models::Folder::new())),
        ("an index", Box::new(models::Index::new())),
        ("an adapter", Box::new(adapters::Adapters::new())),
        ("lines", Box::new(data::Table::new("lines.jsonl"))),
        ("tabs", Box::new(data::Table::new("table.tsv"))),
        ("commas", Box::new(data::Table::new("table.csv"))),
        ("a tokenizer", Box::new(data::Vocabulary::new())),
        ("a template", Box::new(data::Template)),
    ]
}

/// A folder of these files and nothing else. None is written over: those that are emptied first are forced to some disks
/// each time.
fn put(folder: &Path, files: &Files) {
    if folder.exists() {
        fs::remove_dir_all(folder).unwrap();
    }
    fs::create_dir(folder).unwrap();
    files.iter().for_each(|(name, contents)| fs::write(folder.join(name), contents).unwrap());
}

/// One try of a kind.
fn attempt(kind: &mut dyn Kind, count: &mut Count, folder: &Path, number: u64, random: &mut Random) {
    let (mut files, damaged) = kind.files(random);
    for _ in 0..1 + random.below(2) {
        let which = random.below(damaged);
        damage(&mut files[which].1, random);
    }
    put(folder, &files);
    let size: usize = files.iter().map(|(_, contents)| contents.len()).sum();
    let begin = Instant::now();
    let (found, bytes) = peak(|| kind.open(folder));
    let [each, free] = kind.allowance();
    count.tries += 1;
    count.most = count.most.max(bytes);
    assert!(bytes <= each * size + free, "mutation {number}: {bytes} bytes for files of {size}");
    match found {
        Ok(()) => {
            count.opened += 1;
            kind.try_out(folder);
        }
        Err(error) => {
            let text = error.to_string();
            let (whole, one_line) = (text.contains(&*folder.to_string_lossy()), !text.contains('\n'));
            assert!(whole && one_line && text.len() > folder.as_os_str().len() + 10, "mutation {number}: {text}");
        }
    }
    count.slowest = count.slowest.max(begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(20), "mutation {number} took {:?}", begin.elapsed());
}

fn mutations(number: u64, seed: u64) {
    let home = tempfile::tempdir().unwrap();
    let mut kinds = kinds();
    let mut counts: Vec<Count> = kinds.iter().map(|_| Count::default()).collect();
    let folders: Vec<_> = kinds.iter().map(|(name, _)| home.path().join(name)).collect();
    models::leave_outside(home.path());
    for i in 0..number {
        let at = i as usize % kinds.len();
        attempt(&mut *kinds[at].1, &mut counts[at], &folders[at], i, &mut Random::new(seed, i));
    }
    for ((name, _), count) in kinds.iter().zip(&counts) {
        println!("{name}: {count:?}");
        let (few, many) = (count.tries / 50, count.tries - count.tries / 50);
        assert!(count.opened > few && count.opened < many, "{name}: mutations that find nothing out: {count:?}");
    }
}

#[test]
fn damaged_files_are_errors_and_nothing_worse() {
    mutations(2_000, 1);
}

#[test]
#[ignore = "the long form: minutes"]
fn damaged_files_are_errors_and_nothing_worse_100_000_times() {
    mutations(100_000, 2);
}
