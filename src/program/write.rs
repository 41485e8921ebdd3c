//! What is written for people to go on with: a first configuration, one out of somebody else's, completions and manual pages.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use serde_json::json;

use crate::cli::init::{NewFile, answers};
use crate::cli::{Arguments, Format, Import, InitArguments, import};
use crate::exit::{self, Failure};
use crate::program::say;
use crate::text::visible_line;

/// Prints what was made of somebody else's file, and says what is missing of it.
pub(super) fn import(what: Import, format: Format) -> Result<u8, Failure> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|error| Failure::new(exit::NO_INPUT, format!("cannot read {}: {error}", path.display())))
    };
    let (file, imported) = match &what {
        Import::Gatus { file } => (file, import::gatus(&read(file)?)),
        Import::Blackbox { file, targets } => {
            let targets = targets.as_deref().map(read).transpose()?;
            (file, import::blackbox(&read(file)?, targets.as_deref()))
        }
    };
    let imported = imported.map_err(|why| Failure::new(exit::DATA, format!("{}: {why}", file.display())))?;
    let code = if imported.is_whole() { 0 } else { exit::DATA };
    if format == Format::Json {
        let note = |note: &import::Note| json!({ "line": note.line, "text": note.text, "left_out": note.is_loss });
        let notes: Vec<_> = imported.notes.iter().map(note).collect();
        let document = json!({ "whole": imported.is_whole(), "notes": notes, "toml": imported.toml });
        return say(&format!("{document:#}\n")).map(|()| code);
    }
    for note in &imported.notes {
        let kind = if note.is_loss { "left out" } else { "note" };
        eprintln!("{}:{}: {kind}: {}", file.display(), note.line, visible_line(&note.text));
    }
    say(&imported.toml)?;
    Ok(code)
}

/// Asks, writes, and says how to go on.
pub(super) fn init(asked: &InitArguments) -> Result<u8, Failure> {
    let answers = answers(asked, &mut std::io::stdin().lock(), &mut std::io::stderr().lock())
        .map_err(|why| Failure::new(exit::USAGE, why))?;
    let mut token = [0; 16];
    getrandom::fill(&mut token).map_err(|error| Failure::new(exit::SOFTWARE, format!("no random bytes: {error}")))?;
    let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    let files = answers.files(&token);
    for file in &files {
        let path = asked.dir.join(&file.path);
        if path.exists() {
            let help = "nothing was written; choose another directory with `--dir`";
            return Err(Failure::new(
                exit::CANNOT_CREATE,
                format!("{} is there already\n  help: {help}", path.display()),
            ));
        }
    }
    for file in &files {
        let path = asked.dir.join(&file.path);
        write_new(&path, file)
            .map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("cannot write {}: {error}", path.display())))?;
        if asked.format == Format::Text {
            say(&format!("wrote {}\n", path.display()))?;
        }
    }
    let name = answers.name();
    if asked.format == Format::Json {
        let files: Vec<_> = files.iter().map(|file| asked.dir.join(&file.path)).collect();
        let document = json!({ "journey": name, "files": files, "has_to_call_us": answers.is_called() });
        return say(&format!("{document:#}\n")).map(|()| 0);
    }
    let called = if answers.is_called() {
        format!("have the system call us as config/journeyman.toml says: until then `{name}` fails\n")
    } else {
        String::new()
    };
    // All that follows looks for the files where it stands.
    let here = match asked.dir.as_path() {
        dir if dir == Path::new(".") => String::new(),
        dir => format!("go there:  cd {}\n", dir.display()),
    };
    let on = "start it:  journeyman run\nsee it:    http://127.0.0.1:9464/";
    say(&format!("\n{here}try it:    journeyman once {name}\n{on}\n{called}"))?;
    Ok(0)
}

/// Files that were written, for people or for programs.
pub(super) fn list(files: &[PathBuf], format: Format) -> String {
    match format {
        Format::Json => format!("{:#}\n", json!({ "files": files })),
        Format::Text => files.iter().map(|path| format!("{}\n", path.display())).collect(),
    }
}

fn write_new(path: &Path, file: &NewFile) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mode = if file.is_secret { 0o600 } else { 0o644 };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(file.text.as_bytes())
}

/// Prints the completions for a shell.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "journeyman", &mut text);
    say(&String::from_utf8_lossy(&text)).map(|()| 0)
}

/// Prints the manual page, or writes one for each command.
pub(super) fn man(directory: Option<&Path>) -> Result<u8, Failure> {
    let command = Arguments::command();
    let Some(directory) = directory else {
        let mut text = Vec::new();
        let made = clap_mangen::Man::new(command).render(&mut text);
        made.map_err(|error| Failure::new(exit::SOFTWARE, format!("no manual page can be made: {error}")))?;
        return say(&String::from_utf8_lossy(&text)).map(|()| 0);
    };
    let written = std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
    written
        .map(|()| 0)
        .map_err(|error| Failure::new(exit::CANNOT_CREATE, format!("cannot write to {}: {error}", directory.display())))
}
