//! From a backend's document to what exactly is spawned. Pure but for looking files up ([`resolve`]).
//!
//! A child's environment is built from nothing: the few variables every program expects, then the document's. Values
//! are secrets: nothing here has a `Debug` that shows one.

use std::{
    ffi::{OsStr, OsString},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use mcp_gateway_api::{
    backend::{EnvValue, LaunchSpec},
    failure::ExitReport,
};

/// What every child gets from the gateway's own environment, if set there.
const INHERITED: [&str; 8] = [
    "HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LANG", "TMPDIR",
];

/// Where programs are looked for if the gateway itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How the gateway's own environment is read; a value so that tests can give one.
pub type Environment = Arc<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// What is spawned. Holds secrets, so it has no `Debug`.
pub(crate) struct Plan {
    /// The executable, found.
    pub(crate) program: PathBuf,
    /// What the program sees as its own name: as written in the document.
    pub(crate) name: String,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Its whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Where it runs.
    pub(crate) dir: Option<PathBuf>,
}

/// A report for something that never began.
pub(crate) fn not_started(summary: impl Into<String>) -> ExitReport {
    ExitReport {
        summary: summary.into(),
        ..ExitReport::default()
    }
}

/// Makes the plan; `port` is given for HTTP servers.
///
/// # Errors
/// A sentence naming what is missing and what to do about it.
pub(crate) fn plan(
    spec: &LaunchSpec,
    port: Option<u16>,
    environment: &Environment,
) -> Result<Plan, ExitReport> {
    let fill = |text: &String| match port {
        Some(port) => text.replace("${PORT}", &port.to_string()),
        None => text.clone(),
    };
    let mut words = spec.command.iter().chain(&spec.args).map(fill);
    let name = words.next().filter(|name| !name.is_empty()).ok_or_else(|| {
        not_started("it has no command: name the program in `command`, for example command: [npx, -y, some-server]")
    })?;
    let args: Vec<String> = words.collect();
    let env = child_env(spec, port, environment)?;
    if [&name]
        .into_iter()
        .chain(&args)
        .any(|word| word.contains('\0'))
    {
        return Err(not_started("its command contains a zero byte"));
    }
    if let Some(dir) = spec.working_dir.as_deref()
        && !dir.is_dir()
    {
        return Err(not_started(format!(
            "its workingDir {} is not a folder: create it, or correct `workingDir`",
            dir.display()
        )));
    }
    let path = env
        .iter()
        .rev()
        .find(|(key, _)| key == "PATH")
        .map(|(_, value)| value.clone())
        .unwrap_or_default();
    let program = resolve(&name, spec.working_dir.as_deref(), &path)?;
    Ok(Plan {
        program,
        name,
        args,
        env,
        dir: spec.working_dir.clone(),
    })
}

fn child_env(
    spec: &LaunchSpec,
    port: Option<u16>,
    environment: &Environment,
) -> Result<Vec<(OsString, OsString)>, ExitReport> {
    let mut env: Vec<(OsString, OsString)> = INHERITED
        .iter()
        .filter_map(|name| environment(name).map(|value| (name.into(), value)))
        .collect();
    if env.iter().all(|(name, _)| name != "PATH") {
        env.push(("PATH".into(), DEFAULT_PATH.into()));
    }
    if let Some(port) = port {
        env.push(("HOST".into(), "127.0.0.1".into()));
        env.push(("PORT".into(), port.to_string().into()));
    }
    for var in &spec.env {
        let value = match &var.value {
            EnvValue::Literal(text) => OsString::from(text),
            EnvValue::FromEnv(name) => environment(name).ok_or_else(|| {
                not_started(format!(
                    "its variable {} takes its value from the gateway's environment (valueFrom.env: {name}), where \
                     {name} is not set: set {name} where the gateway is started",
                    var.name
                ))
            })?,
            EnvValue::FromSecret(from) | EnvValue::FromConfigMap(from) => {
                return Err(not_started(format!(
                    "its variable {} takes its value from {} in a cluster, and this gateway starts processes: use value, \
                     or valueFrom.env",
                    var.name, from.name
                )));
            }
        };
        let bad_name = var.name.is_empty() || var.name.contains(['=', '\0']);
        if bad_name || value.as_bytes().contains(&0) {
            return Err(not_started(format!(
                "its variable {:?} cannot be set: a name must not be empty or contain `=`, and neither may contain a \
                 zero byte",
                var.name
            )));
        }
        env.push((OsString::from(&var.name), value));
    }
    Ok(env)
}

/// Finds the executable as a shell would, but tells apart what a shell calls "not found".
///
/// It is done here rather than by the spawn, because only with a path given does the standard library take the fast
/// road (`posix_spawn`), and because its "No such file" could mean the program, its interpreter or the folder.
fn resolve(name: &str, dir: Option<&Path>, path: &OsStr) -> Result<PathBuf, ExitReport> {
    if name.contains('/') {
        let file = dir.map_or_else(|| PathBuf::from(name), |dir| dir.join(name));
        let file = std::path::absolute(&file).unwrap_or(file);
        return match check(&file) {
            Found::Executable => Ok(file),
            Found::NotExecutable => Err(not_started(format!(
                "its command {name} is not an executable file ({}): make it executable, or name its interpreter first",
                file.display()
            ))),
            Found::Missing => Err(not_started(format!(
                "its command {name} does not exist ({}): correct `command`",
                file.display()
            ))),
        };
    }
    let mut unusable = None;
    for folder in std::env::split_paths(path) {
        let file = dir
            .map_or_else(|| folder.clone(), |dir| dir.join(&folder))
            .join(name);
        match check(&file) {
            Found::Executable => return Ok(std::path::absolute(&file).unwrap_or(file)),
            Found::NotExecutable => unusable = Some(file),
            Found::Missing => {}
        }
    }
    Err(not_started(unusable.map_or_else(
        || {
            format!(
                "its command {name} was not found in PATH: install it, or write its full path in `command`"
            )
        },
        |file| {
            format!(
                "its command {name} was found only as {}, which is not executable: make it executable",
                file.display()
            )
        },
    )))
}

enum Found {
    Executable,
    NotExecutable,
    Missing,
}

fn check(file: &Path) -> Found {
    match file.metadata() {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => Found::Executable,
        Ok(_) => Found::NotExecutable,
        Err(_) => Found::Missing,
    }
}

#[cfg(test)]
mod tests;
