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

/// What of our own environment a child gets, before the document's.
#[derive(Clone)]
pub(crate) enum Base {
    /// Only what every program expects; the rest can be asked for by name (`valueFrom.env`).
    Chosen(Environment),
    /// All of this, which somebody else chose: in a pod, what Kubernetes gave the container.
    Whole(Arc<[(OsString, OsString)]>),
}

impl From<&Environment> for Base {
    fn from(environment: &Environment) -> Self {
        Self::Chosen(Arc::clone(environment))
    }
}

impl Base {
    fn get(&self, name: &str) -> Option<OsString> {
        match self {
            Self::Chosen(environment) => environment(name),
            Self::Whole(all) => {
                let found = all.iter().rev().find(|(key, _)| key == name);
                found.map(|(_, value)| value.clone())
            }
        }
    }

    fn start(&self) -> Vec<(OsString, OsString)> {
        match self {
            Self::Chosen(environment) => INHERITED
                .iter()
                .filter_map(|name| environment(name).map(|value| (name.into(), value)))
                .collect(),
            Self::Whole(all) => all.to_vec(),
        }
    }
}

/// Where an HTTP server is told to listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listen {
    /// `HOST`.
    pub(crate) host: &'static str,
    /// `PORT` and `${PORT}`.
    pub(crate) port: u16,
}

impl Listen {
    /// On this machine, for nobody else.
    pub(crate) const fn on_loopback(port: u16) -> Self {
        Self {
            host: "127.0.0.1",
            port,
        }
    }
}

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

/// A report for something that never began; what it says names commands, folders and variables.
pub(crate) fn not_started(summary: impl Into<String>) -> ExitReport {
    ExitReport {
        summary: summary.into(),
        private: true,
        ..ExitReport::default()
    }
}

/// Makes the plan; `listen` is given for HTTP servers.
///
/// # Errors
/// A sentence naming what is missing and what to do about it.
pub(crate) fn plan(
    spec: &LaunchSpec,
    listen: Option<Listen>,
    base: &Base,
) -> Result<Plan, ExitReport> {
    let fill = |text: &String| match listen {
        Some(listen) => text.replace("${PORT}", &listen.port.to_string()),
        None => text.clone(),
    };
    let mut words = spec.command.iter().chain(&spec.args).map(fill);
    let name = words.next().filter(|name| !name.is_empty()).ok_or_else(|| {
        not_started("it has no command: name the program in `command`, for example command: [npx, -y, some-server]")
    })?;
    let args: Vec<String> = words.collect();
    let env = child_env(spec, listen, base)?;
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
    listen: Option<Listen>,
    base: &Base,
) -> Result<Vec<(OsString, OsString)>, ExitReport> {
    let mut env = base.start();
    if env.iter().all(|(name, _)| name != "PATH") {
        env.push(("PATH".into(), DEFAULT_PATH.into()));
    }
    if let Some(listen) = listen {
        env.push(("HOST".into(), listen.host.into()));
        env.push(("PORT".into(), listen.port.to_string().into()));
    }
    for var in &spec.env {
        let value = match &var.value {
            EnvValue::Literal(text) => OsString::from(text),
            EnvValue::FromEnv(name) => base.get(name).ok_or_else(|| {
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
