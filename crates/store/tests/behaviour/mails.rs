//! Mail that waits: one of each to an address, taken by one, again later.

use undine_store::*;

use crate::fixtures::*;
use crate::on_both;

on_both!(of_eight_instances_one_takes_a_mail_and_an_address_waits_for_one_of_each);

fn mail(address: &str, about: MailAbout, not_before: i64) -> Mail {
    Mail {
        id: id(),
        version: 1,
        created_at: T0,
        updated_at: T0,
        address: address.to_owned(),
        about,
        tries: 0,
        not_before,
        error: None,
    }
}

async fn of_eight_instances_one_takes_a_mail_and_an_address_waits_for_one_of_each(store: Store) {
    let mails = store.mails();
    let first = mail("ann@example.com", MailAbout::Reset, T0);
    mails.insert(&first).await.unwrap();
    let later = mail("bob@example.com", MailAbout::Reset, T0 + 1);
    mails.insert(&later).await.unwrap();
    let other = mail("ann@example.com", MailAbout::Changed, T0 + 9);
    mails.insert(&other).await.unwrap();
    let twice = mails
        .insert(&mail("ann@example.com", MailAbout::Reset, T0))
        .await;
    assert!(matches!(twice, Err(StoreError::Taken { .. })), "{twice:?}");

    let due = mails.due(T0, 9).await.unwrap();
    assert_eq!(due.iter().map(|it| it.id).collect::<Vec<_>>(), [first.id]);
    let tries = (0..8).map(|_| {
        let (store, seen) = (store.clone(), due[0].clone());
        tokio::spawn(async move { store.mails().take(&seen, T0 + 60, T0).await.unwrap() })
    });
    let won: Vec<Mail> = futures_util::future::join_all(tries)
        .await
        .into_iter()
        .filter_map(Result::unwrap)
        .collect();
    assert_eq!(won.len(), 1);
    assert_eq!((won[0].tries, won[0].not_before), (1, T0 + 60));
    let due = mails.due(T0 + 60, 9).await.unwrap();
    assert_eq!(due.len(), 3, "whoever took it died: it is due again");
    mails.delete(first.id, None).await.unwrap();
    assert_eq!(mails.take(&won[0], T0 + 99, T0).await.unwrap(), None);
}
