//! Puts this program into a folder that the server's container will mount: the form `init`.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The program's name wherever it is copied or mounted.
const NAME: &str = "mcp-gateway-agent";

/// Copies; nobody sees half a file. Gives the path of the copy.
pub(crate) fn copy_to(dir: &Path) -> io::Result<PathBuf> {
    let whole = dir.join(NAME);
    let half = dir.join(format!(".{NAME}.part"));
    fs::copy(env::current_exe()?, &half)?;
    fs::set_permissions(&half, fs::Permissions::from_mode(0o755))?;
    fs::rename(&half, &whole)?;
    Ok(whole)
}
