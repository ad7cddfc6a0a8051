//! How the cluster is reached, and as whom: a kubeconfig file, or what every pod is given.
//!
//! Whatever in a kubeconfig would run a program, go through another server or trust anybody is refused rather than left
//! out: it would end in less than the owner meant, or in more.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::objects::{items, text};
use crate::config::Secret;

/// Where a pod finds what it needs to reach its cluster.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The largest kubeconfig, certificate or token, in bytes.
const FILE_BYTES: u64 = 256 * 1024;

/// How the cluster is reached, and as whom.
#[derive(Debug)]
pub(crate) struct Access {
    /// The server's address, without `/` at its end.
    pub(crate) server: String,
    /// Certificates of those whom to trust, PEM; absent: those of the system.
    pub(crate) authorities: Option<Vec<u8>>,
    /// Our own certificate and its key, PEM.
    pub(crate) identity: Option<Secret>,
    /// The bearer token.
    pub(crate) token: Token,
    /// The namespace of objects that name none.
    pub(crate) namespace: String,
}

/// A bearer token.
#[derive(Debug)]
pub(crate) enum Token {
    /// There is none.
    None,
    /// It stays the same.
    Fixed(Secret),
    /// It is in a file, which somebody writes anew from time to time.
    File(PathBuf),
}

impl Access {
    /// Returns what a kubeconfig says of its current context, or why it cannot be used.
    pub(crate) fn of_file(path: &Path) -> Result<Self, String> {
        let content = read(path)?;
        let content = String::from_utf8(content).map_err(|_| format!("{}: it is not text", path.display()))?;
        Self::of_text(&content, path.parent().unwrap_or(Path::new("/")))
            .map_err(|message| format!("{}: {message}", path.display()))
    }

    fn of_text(content: &str, folder: &Path) -> Result<Self, String> {
        let config: Value = serde_yaml::from_str(content).map_err(|error| error.to_string())?;
        let current = text(&config, &["current-context"]);
        let context = named(&config, "contexts", "context", current)?;
        let cluster = named(&config, "clusters", "cluster", text(context, &["cluster"]))?;
        let user = named(&config, "users", "user", text(context, &["user"]))?;
        let refuse = |value: &Value, of: &str, keys: &[&str], why: &str| {
            let set = |key: &&&str| value.get(**key).is_some_and(|set| !set.is_null() && set != &Value::Bool(false));
            keys.iter().find(set).map_or(Ok(()), |key| Err(format!("{of}.{key} is refused: {why}")))
        };
        refuse(
            user,
            "user",
            &["exec", "auth-provider"],
            "the agent runs no program to log in; use a token or certificate",
        )?;
        refuse(user, "user", &["as", "as-uid", "as-groups", "as-user-extra"], "the agent does not impersonate")?;
        refuse(user, "user", &["username", "password"], "no server takes passwords any more")?;
        refuse(cluster, "cluster", &["insecure-skip-tls-verify"], "name the certificate authority instead")?;
        refuse(cluster, "cluster", &["proxy-url", "tls-server-name"], "the agent goes to the server itself")?;
        let server = text(cluster, &["server"]).trim_end_matches('/').to_owned();
        check_server(&server)?;
        let authorities = data_or_file(cluster, "certificate-authority", folder)?;
        let certificate = data_or_file(user, "client-certificate", folder)?;
        let key = data_or_file(user, "client-key", folder)?;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let pem = [certificate, b"\n".to_vec(), key].concat();
                Some(Secret::new(String::from_utf8(pem).map_err(|_| "client-certificate: it is not PEM".to_owned())?))
            }
            (None, None) => None,
            _ => return Err("client-certificate and client-key need each other".to_owned()),
        };
        let token = match (text(user, &["tokenFile"]), text(user, &["token"])) {
            ("", "") => Token::None,
            ("", token) => Token::Fixed(Secret::new(token.to_owned())),
            (file, _) => Token::File(folder.join(file)),
        };
        let namespace = match text(context, &["namespace"]) {
            "" => "default".to_owned(),
            namespace => namespace.to_owned(),
        };
        Ok(Self { server, authorities, identity, token, namespace })
    }

    /// Returns what a pod is given to reach its cluster; `env` is the environment.
    pub(crate) fn of_pod(env: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let (Some(host), Some(port)) = (env("KUBERNETES_SERVICE_HOST"), env("KUBERNETES_SERVICE_PORT")) else {
            return Err("the agent does not run in a cluster; name a file in appliers.kubernetes.kubeconfig".to_owned());
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let folder = Path::new(SERVICE_ACCOUNT);
        Ok(Self {
            server: format!("https://{host}:{port}"),
            authorities: Some(read(&folder.join("ca.crt"))?),
            identity: None,
            token: Token::File(folder.join("token")),
            namespace: "default".to_owned(),
        })
    }
}

impl Token {
    /// Returns the token as it is now.
    pub(crate) fn read(&self) -> Result<Option<Secret>, String> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(secret) => Ok(Some(secret.clone())),
            Self::File(path) => {
                let token = String::from_utf8(read(path)?).unwrap_or_default();
                let token = token.trim();
                if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
                    return Err(format!("{}: it holds no token", path.display()));
                }
                Ok(Some(Secret::new(token.to_owned())))
            }
        }
    }
}

fn named<'a>(config: &'a Value, list: &str, inner: &str, name: &str) -> Result<&'a Value, String> {
    let found = items(config, &[list]).iter().find(|item| !name.is_empty() && text(item, &["name"]) == name);
    found.and_then(|item| item.get(inner)).ok_or_else(|| match name {
        "" => format!("it does not say which of its {list} is meant"),
        name => format!("there is no {name:?} among its {list}"),
    })
}

/// Refuses addresses that would carry the credentials in the clear: only a server on this very host may.
fn check_server(server: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(server).map_err(|_| format!("cluster.server: {server:?} is no address"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err("cluster.server: it holds more than an address".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    let loopback = matches!(host, "localhost" | "[::1]") || host.starts_with("127.");
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        _ => Err(format!("cluster.server: {server:?} is not https://")),
    }
}

fn data_or_file(value: &Value, name: &str, folder: &Path) -> Result<Option<Vec<u8>>, String> {
    match (text(value, &[&format!("{name}-data")]), text(value, &[name])) {
        ("", "") => Ok(None),
        ("", file) => read(&folder.join(file)).map(Some),
        (data, _) => STANDARD.decode(data).map(Some).map_err(|error| format!("{name}-data: {error}")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let fault = |error: &dyn std::fmt::Display| format!("{} cannot be read: {error}", path.display());
    let size = fs::metadata(path).map_err(|error| fault(&error))?.len();
    if size > FILE_BYTES {
        return Err(fault(&format!("it has {size} bytes, more than {FILE_BYTES}")));
    }
    fs::read(path).map_err(|error| fault(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cluster: &str, user: &str) -> Result<Access, String> {
        let config = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u, namespace: shop}}}}]\n\
             clusters: [{{name: k, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        );
        Access::of_text(&config, Path::new("/nowhere"))
    }

    #[test]
    fn a_token_or_a_certificate_says_who_we_are() {
        let access =
            of("server: 'https://k:6443/', certificate-authority-data: aGk=", "token: t0ps3cret").expect("access");
        assert_eq!((access.server.as_str(), access.namespace.as_str()), ("https://k:6443", "shop"));
        assert_eq!(access.authorities.as_deref(), Some(&b"hi"[..]));
        assert_eq!(access.token.read().expect("token").expect("some").reveal(), "t0ps3cret");
        assert!(!format!("{access:?}").contains("t0ps3cret"), "secrets are not shown");
        let access = of("server: 'https://k'", "client-certificate-data: YQ==, client-key-data: Yg==").expect("access");
        assert_eq!(access.identity.expect("identity").reveal(), "a\nb");
    }

    #[test]
    fn what_would_run_a_program_or_trust_anybody_is_refused_by_name() {
        for (cluster, user, key) in [
            ("server: 'https://k'", "exec: {command: sh}", "user.exec"),
            ("server: 'https://k'", "auth-provider: {name: gcp}", "user.auth-provider"),
            ("server: 'https://k'", "as: root", "user.as"),
            ("server: 'https://k'", "password: x", "user.password"),
            ("server: 'https://k', insecure-skip-tls-verify: true", "", "cluster.insecure-skip-tls-verify"),
            ("server: 'https://k', proxy-url: 'http://p'", "", "cluster.proxy-url"),
            ("server: 'http://k'", "", "cluster.server"),
            ("server: 'https://u:p@k'", "", "cluster.server"),
            ("server: nonsense", "", "cluster.server"),
            ("server: 'https://k'", "client-key-data: Yg==", "client-certificate"),
            ("server: 'https://k', certificate-authority: ca.pem", "", "/nowhere/ca.pem"),
        ] {
            let message = of(cluster, user).expect_err(key);
            assert!(message.contains(key), "{key}: {message}");
        }
        assert!(of("server: 'http://127.0.0.1:8001', insecure-skip-tls-verify: false", "").is_ok());
    }

    #[test]
    fn a_token_in_a_file_is_read_each_time() {
        let dir = tempfile::tempdir().expect("dir");
        let token = Token::File(dir.path().join("token"));
        assert!(token.read().is_err(), "missing");
        for text in ["one", "two"] {
            fs::write(dir.path().join("token"), format!("{text}\n")).expect("token");
            assert_eq!(token.read().expect("token").expect("some").reveal(), text);
        }
        fs::write(dir.path().join("token"), vec![b'x'; FILE_BYTES as usize + 1]).expect("token");
        assert!(token.read().expect_err("large").contains("more than"));
    }

    #[test]
    fn outside_of_a_cluster_that_is_what_is_said() {
        assert!(Access::of_pod(|_| None).expect_err("no pod").contains("appliers.kubernetes.kubeconfig"));
    }
}
