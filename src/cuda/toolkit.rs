//! Libraries of CUDA toolkits: found at run time, in more places than the loader looks.

use std::env;
use std::path::{Path, PathBuf};

/// A library, and where to look for it.
pub(crate) struct Wanted {
    /// What messages call it, such as `NVRTC`.
    pub name: &'static str,
    /// The environment variable that names its file or folder, or says `none`.
    pub variable: &'static str,
    /// Names that toolkits give its file, newest first.
    pub files: &'static [&'static str],
    /// What the names of libraries begin with that it opens by name alone.
    pub needs: &'static [&'static str],
}

/// A C interface as a structure of functions, under their own names. What they return is a plain number: a newer library may know
/// results that nobody here has heard of.
macro_rules! functions {
    ($(#[$doc:meta])* $($function:ident($($argument:ty),* $(,)?) -> $result:ty;)*) => {
        $(#[$doc])*
        #[allow(non_snake_case)]
        pub(super) struct Functions {
            $(pub $function: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn load(library: &libloading::Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: the signature is that of the library's header, the same in every version that exports the name.
                    $($function: *unsafe { library.get(concat!(stringify!($function), "\0").as_bytes()) }?,)*
                })
            }
        }
    };
}
pub(super) use functions;

impl Wanted {
    /// Opens the library: the file or folder that the variable names (`none`: none at all), or the one that the loader finds, or that
    /// of a toolkit; with the name it was opened by. The error says, in a line, where there is none.
    pub fn open<F>(
        &self,
        functions: fn(&libloading::Library) -> Result<F, libloading::Error>,
    ) -> Result<(F, PathBuf), String> {
        let Self { name, variable, files, .. } = self;
        if let Some(named) = env::var_os(variable).filter(|value| !value.is_empty()) {
            if named == "none" {
                return Err(format!("no {name} ({variable}=none)"));
            }
            let path = PathBuf::from(named);
            let all =
                if path.is_dir() { files.iter().map(|name| path.join(name)).collect() } else { vec![path.clone()] };
            let file = all.into_iter().find(|file| file.is_file());
            let file =
                file.ok_or_else(|| format!("{variable}: {}: expected {name}'s library or its folder", path.display()))?;
            return self.load(&file, functions).map_err(|problem| format!("{variable}: {problem}"));
        }
        let by_name = files.iter().map(PathBuf::from);
        let in_toolkits = self.in_toolkits().into_iter().filter(|file| file.is_file());
        let found = by_name.chain(in_toolkits).find_map(|file| self.load(&file, functions).ok());
        found.ok_or_else(|| {
            let files = files.join(", ");
            format!("no {name} ({files}) on the library path or in CUDA_HOME; {variable} names one elsewhere")
        })
    }

    fn in_toolkits(&self) -> Vec<PathBuf> {
        let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).filter(|root| !root.is_empty());
        let usual = ["/usr/local/cuda", "/opt/cuda"].into_iter().map(Into::into);
        let roots: Vec<PathBuf> = named.chain(usual).map(PathBuf::from).collect();
        let folders = roots.iter().flat_map(|root| ["lib64", "lib", "bin"].map(|folder| root.join(folder)));
        folders.flat_map(|folder| self.files.iter().map(move |name| folder.join(name))).collect()
    }

    /// What a library opens by name alone lies beside it: off the library path, it is found only if it is loaded already.
    fn load_needs(&self, file: &Path) {
        let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return };
        let Ok(entries) = folder.read_dir() else { return };
        let siblings = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_needed = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.needs.iter().any(|start| name.starts_with(start))
        };
        for path in siblings.filter(is_needed) {
            // SAFETY: as for the library itself.
            if let Ok(library) = unsafe { libloading::Library::new(path) } {
                std::mem::forget(library);
            }
        }
    }

    fn load<F>(
        &self,
        file: &Path,
        functions: fn(&libloading::Library) -> Result<F, libloading::Error>,
    ) -> Result<(F, PathBuf), String> {
        let problem = |error: libloading::Error| format!("{}: {error}", file.display());
        self.load_needs(file);
        // SAFETY: the library is NVIDIA's, by its name or by the user's word; its initialisers ask nothing of their caller.
        let library = unsafe { libloading::Library::new(file) }.map_err(problem)?;
        let functions = functions(&library).map_err(problem)?;
        std::mem::forget(library); // its functions are called until the process ends
        Ok((functions, file.to_owned()))
    }
}
