//! A control plane that is away for a moment, because it is started anew for instance: whoever waits asks again.

use std::time::{Duration, Instant};

use titan_api::{
    Code,
    client::{ClientError, Result},
};

/// How long it may be away.
pub(crate) const MOST: Duration = Duration::from_secs(30);
/// How often it is asked meanwhile.
const INTERVAL: Duration = Duration::from_millis(500);
/// What is said of it.
pub(crate) const SAID: &str = "the control plane is away, trying again";

/// Whether the control plane is away, and since when.
#[derive(Debug, Default)]
pub(crate) struct Away {
    since: Option<Instant>,
}

impl Away {
    /// Whether it may be asked again after this error: it gave no answer of its own, and not for too long.
    pub(crate) fn endures(&mut self, error: &ClientError) -> bool {
        let away = match error {
            ClientError::Unreachable { .. } | ClientError::NotTitan { .. } | ClientError::Slow { .. } => true,
            _ => error.code() == Some(Code::Unavailable),
        };
        away && self.since.get_or_insert_with(Instant::now).elapsed() <= MOST
    }

    /// It answered.
    pub(crate) const fn back(&mut self) {
        self.since = None;
    }

    /// Whether it is away now.
    pub(crate) const fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// Lets a moment pass.
    pub(crate) async fn pass() {
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Returns what is answered, asked for again while the control plane is away; `say` tells that once.
pub(crate) async fn outlast<T>(mut say: impl FnMut(&str), mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let (mut away, mut said) = (Away::default(), false);
    loop {
        match ask().await {
            Err(error) if away.endures(&error) => {
                if !said {
                    say(SAID);
                    said = true;
                }
                Away::pass().await;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use titan_api::Problem;

    use super::*;

    fn proxy() -> ClientError {
        ClientError::NotTitan { server: "http://a".into(), status: 502, what: "text/html".into(), retry_after: None }
    }

    fn refused(code: Code) -> ClientError {
        ClientError::Refused { problem: Box::new(Problem::new(code, "no")), retry_after: None }
    }

    #[test]
    fn it_may_be_away_for_so_long_and_then_again() {
        let mut away = Away::default();
        assert!(away.endures(&proxy()) && away.is_on());
        away.since = Instant::now().checked_sub(MOST + Duration::from_secs(1));
        assert!(away.since.is_some() && !away.endures(&proxy()));
        away.back();
        assert!(!away.is_on() && away.endures(&proxy()));
    }

    #[test]
    fn an_answer_of_its_own_is_an_answer() {
        assert!(Away::default().endures(&refused(Code::Unavailable)));
        for code in [Code::NotFound, Code::Unauthorized, Code::Internal] {
            assert!(!Away::default().endures(&refused(code)), "{code}");
        }
    }

    #[tokio::test]
    async fn it_is_asked_until_it_answers() {
        let (mut asked, mut said) = (0, Vec::new());
        let say = |text: &str| said.push(text.to_owned());
        let answer = outlast(say, async || {
            asked += 1;
            if asked < 3 { Err(proxy()) } else { Ok(7) }
        });
        assert_eq!(answer.await.ok(), Some(7));
        assert_eq!((asked, said), (3, vec![SAID.to_owned()]));
        let refused = outlast(|_| panic!("it is there"), async || Err::<(), _>(refused(Code::NotFound)));
        assert_eq!(refused.await.err().and_then(|error| error.code()), Some(Code::NotFound));
    }
}
