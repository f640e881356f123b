//! Files and folders → readings. The only module that touches the disk.
//!
//! Bounded: a file by [`MAX_FILE`], a folder by [`MAX_FILES`]. A folder is not searched deeper; hidden files and other
//! extensions are passed over.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    draft::{Reading, Refused},
    place::Place,
    problem::Problem,
    servers, yaml,
};

/// The largest file that is read, in bytes.
pub const MAX_FILE: u64 = 4 << 20;
/// The most files that are read in a folder.
pub const MAX_FILES: usize = 10_000;

/// Reads everything at `path`, in the order of file names, for servers that run at `place`.
#[must_use]
pub fn read(path: &Path, place: Place) -> Vec<Reading> {
    match list(path) {
        Ok(files) => {
            let readings = files.iter().take(MAX_FILES);
            let readings = readings.map(|file| read_file(file, place));
            let excess = (files.len() > MAX_FILES).then(|| too_many(path, files.len()));
            readings.chain(excess).collect()
        }
        Err(error) => vec![unreadable(path, &error)],
    }
}

fn too_many(path: &Path, count: usize) -> Reading {
    let problem = Problem::error(path, format!("there are {count} files in this folder"));
    let remedy = format!("only the first {MAX_FILES} are read; join documents with '---'");
    Reading {
        file: path.to_owned(),
        refused: vec![Refused {
            key: None,
            problem: problem.remedy(remedy),
        }],
        ..Reading::default()
    }
}

/// The files at `path`: itself, or those in it.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if is_document(&file) && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a change of this path may change documents: theirs, or that of a folder or link that leads to them.
pub(crate) fn may_hold_documents(path: &Path) -> bool {
    // A mounted ConfigMap changes through its hidden link `..data`.
    is_document(path)
        || path.extension().is_none()
        || path.file_name().is_some_and(|name| name == "..data")
}

fn is_document(file: &Path) -> bool {
    let hidden = file
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with('.'));
    !hidden && extension(file).is_some_and(|ext| matches!(ext.as_str(), "yaml" | "yml" | "json"))
}

fn extension(file: &Path) -> Option<String> {
    file.extension()
        .map(|ext| ext.to_string_lossy().to_ascii_lowercase())
}

fn read_file(file: &Path, place: Place) -> Reading {
    let too_large = |size: u64| Reading {
        file: file.to_owned(),
        refused: vec![Refused {
            key: None,
            problem: Problem::error(file, format!("it is {size} bytes long"))
                .remedy("documents may be up to 4 MiB; split the file"),
        }],
        unreadable: true,
        ..Reading::default()
    };
    match fs::metadata(file) {
        Ok(meta) if meta.len() > MAX_FILE => return too_large(meta.len()),
        Ok(_) => {}
        Err(error) => return unreadable(file, &error),
    }
    match fs::read(file) {
        Ok(bytes) => read_bytes(file, &bytes, place),
        Err(error) => unreadable(file, &error),
    }
}

/// What the bytes of a file yield for servers that run at `place`. Never panics, whatever they are.
#[must_use]
pub fn read_bytes(file: &Path, bytes: &[u8], place: Place) -> Reading {
    match std::str::from_utf8(bytes) {
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count() as u64;
            let problem = Problem::error(file, "it is not UTF-8")
                .at(line, 0)
                .remedy("save it as UTF-8");
            Reading {
                file: file.to_owned(),
                refused: vec![Refused { key: None, problem }],
                ..Reading::default()
            }
        }
        Ok(text) if extension(file).is_some_and(|ext| ext == "json") => {
            servers::read(file, text, place)
        }
        Ok(text) => yaml::read(file, text, place),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Reading {
    let remedy = if error.kind() == io::ErrorKind::NotFound {
        "give the path of a file or folder that exists with --backends"
    } else {
        "give the gateway's user access to it"
    };
    Reading {
        file: path.to_owned(),
        refused: vec![Refused {
            key: None,
            problem: Problem::error(path, format!("it cannot be read ({error})")).remedy(remedy),
        }],
        unreadable: true,
        ..Reading::default()
    }
}
