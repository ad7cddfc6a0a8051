//! Credentials and idempotency keys.

use titan_api::Digest;
use titan_control_plane::store::{TokenKind, TokenRow};
use uuid::Uuid;

use super::{at, name, read, stores, write};

fn token(kind: TokenKind, host: Option<Uuid>, created: i64) -> TokenRow {
    TokenRow {
        id: Uuid::now_v7(),
        kind,
        name: name("tim-pi"),
        host,
        created_at: at(created),
        expires_at: (kind == TokenKind::Join).then(|| at(created + 100)),
        used_by: None,
    }
}

fn hash(token: &TokenRow) -> Digest {
    Digest::of(token.id.as_bytes())
}

#[tokio::test]
async fn credentials_are_found_by_the_hash_of_their_secret_alone() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let host = Uuid::now_v7();
        let all = [
            token(TokenKind::Admin, None, 2),
            token(TokenKind::Admin, None, 1),
            token(TokenKind::Host, Some(host), 1),
            token(TokenKind::Join, Some(host), 1),
        ];
        let mut tx = write(&store).await;
        for token in &all {
            tx.add_token(token, &hash(token)).await.expect("add");
        }
        tx.commit().await.expect("commit");
        let mut tx = read(&store).await;
        for token in &all {
            assert_eq!(tx.token_by_hash(&hash(token)).await.expect("read").as_ref(), Some(token), "{engine}");
        }
        assert_eq!(tx.token_by_hash(&Digest::of(b"guess")).await.expect("read"), None, "{engine}");
        assert_eq!(tx.admin_tokens().await.expect("read"), [all[1].clone(), all[0].clone()], "{engine}");
        drop(tx);
        let twin = TokenRow { id: Uuid::now_v7(), ..all[0].clone() };
        assert!(write(&store).await.add_token(&twin, &hash(&all[0])).await.is_err(), "{engine}: one hash, one token");
    }
}

#[tokio::test]
async fn removed_credentials_are_gone_and_others_stay() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let (host, stays) = (Uuid::now_v7(), Uuid::now_v7());
        let admin = token(TokenKind::Admin, None, 1);
        let own = token(TokenKind::Host, Some(host), 1);
        let join = token(TokenKind::Join, Some(host), 1);
        let other = token(TokenKind::Host, Some(stays), 1);
        let mut tx = write(&store).await;
        for token in [&admin, &own, &join, &other] {
            tx.add_token(token, &hash(token)).await.expect("add");
        }
        assert!(!tx.remove_admin_token(own.id).await.expect("remove"), "{engine}: that is a host's");
        assert!(!tx.remove_admin_token(Uuid::now_v7()).await.expect("remove"), "{engine}");
        assert!(tx.remove_admin_token(admin.id).await.expect("remove"), "{engine}");
        tx.remove_host_tokens(host, Some(TokenKind::Join)).await.expect("remove");
        assert_eq!(tx.token_by_hash(&hash(&join)).await.expect("read"), None, "{engine}");
        assert_eq!(tx.token_by_hash(&hash(&own)).await.expect("read"), Some(own.clone()), "{engine}");
        tx.remove_host_tokens(host, None).await.expect("remove");
        assert_eq!(tx.token_by_hash(&hash(&own)).await.expect("read"), None, "{engine}");
        assert_eq!(tx.token_by_hash(&hash(&other)).await.expect("read"), Some(other), "{engine}");
        assert_eq!(tx.admin_tokens().await.expect("read"), [], "{engine}");
    }
}

#[tokio::test]
async fn used_join_token_says_by_which_attempt_and_expired_ones_are_swept() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let host = Uuid::now_v7();
        let (early, late) = (token(TokenKind::Join, Some(host), 1), token(TokenKind::Join, Some(host), 500));
        let forever = token(TokenKind::Host, Some(host), 1);
        let expired_admin = TokenRow { expires_at: Some(at(2)), ..token(TokenKind::Admin, None, 1) };
        let mut tx = write(&store).await;
        for token in [&early, &late, &forever, &expired_admin] {
            tx.add_token(token, &hash(token)).await.expect("add");
        }
        tx.use_join_token(late.id, "attempt-1").await.expect("use");
        let used = tx.token_by_hash(&hash(&late)).await.expect("read").and_then(|token| token.used_by);
        assert_eq!(used.as_deref(), Some("attempt-1"), "{engine}");
        assert_eq!(tx.tokens_ended(at(300), 0).await.expect("read"), [""; 0], "{engine}: no more than asked for");
        let ended = tx.tokens_ended(at(300), 10).await.expect("read");
        assert_eq!(ended, [early.id.to_string()], "{engine}");
        tx.remove_tokens(&ended).await.expect("remove");
        assert_eq!(tx.token_by_hash(&hash(&early)).await.expect("read"), None, "{engine}");
        for kept in [&late, &forever, &expired_admin] {
            assert!(tx.token_by_hash(&hash(kept)).await.expect("read").is_some(), "{engine}");
        }
    }
}

#[tokio::test]
async fn answer_is_kept_once_for_each_actor_and_key() {
    for (database, store) in stores().await {
        let engine = database.engine;
        let request = Digest::of(b"request");
        let mut tx = write(&store).await;
        tx.keep_answer("ann", "k", &request, "{}", at(10)).await.expect("keep");
        tx.keep_answer("bob", "k", &request, "[]", at(20)).await.expect("keep");
        tx.commit().await.expect("commit");
        let mut tx = write(&store).await;
        assert_eq!(tx.keyed_answer("ann", "k").await.expect("read"), Some((request, "{}".to_owned())), "{engine}");
        assert_eq!(tx.keyed_answer("bob", "k").await.expect("read"), Some((request, "[]".to_owned())), "{engine}");
        assert_eq!(tx.keyed_answer("ann", "other").await.expect("read"), None, "{engine}");
        let old = tx.answers_before(at(15), 10).await.expect("read");
        assert_eq!(old, [("ann".to_owned(), "k".to_owned())], "{engine}");
        tx.remove_answers(&old).await.expect("remove");
        assert_eq!(tx.keyed_answer("ann", "k").await.expect("read"), None, "{engine}");
        assert!(tx.keyed_answer("bob", "k").await.expect("read").is_some(), "{engine}");
        assert!(tx.keep_answer("bob", "k", &request, "{}", at(30)).await.is_err(), "{engine}: a key is used once");
    }
}
