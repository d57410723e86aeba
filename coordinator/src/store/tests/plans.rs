//! Lists that grow with the fleet, in every combination of what they are filtered and ordered by: none is
//! read from end to end, and none is sorted but where a filter has left few rows.

use shared::ids::{BatchId, ImageId, OrganizationId};

use super::*;
use crate::store::audit::AuditList;
use crate::store::device::DeviceList;
use crate::store::firmware::FirmwareList;
use crate::store::listing::plans::{self, Plan};

const ROWS: Rows = Rows { offset: 0, limit: 10 };

fn scopes() -> [Scope; 3] {
    let organizations = |count| {
        let ids = (1..=count).map(|n| OrganizationId(Uuid::from_u128(n)));
        Scope::Organizations(ids.collect())
    };
    [Scope::Everything, organizations(1), organizations(2)]
}

fn order(column: &'static str) -> Order {
    Order { column, descending: true }
}

struct Lists {
    f: Fixture,
    path: String,
}

impl Lists {
    async fn new() -> Self {
        let f = Fixture::new().await;
        let path = f.dir.path().join("db").to_str().unwrap().to_owned();
        plans::watch(&path);
        Self { f, path }
    }

    /// The plan of the list that was just read.
    #[track_caller]
    fn plan(&self) -> Plan {
        let mut plans = plans::take(&self.path);
        assert_eq!(plans.len(), 1);
        plans.remove(0)
    }

    /// `narrow`: a filter leaves a part of all rows; `sorted`: that part may be sorted.
    #[track_caller]
    fn check(&self, narrow: bool, sorted: bool) {
        let Plan { counting, page, sql } = self.plan();
        let is_search = counting.contains("SEARCH t USING");
        let is_count = !narrow && counting.contains("USING COVERING INDEX");
        assert!(is_search || is_count, "counted row by row: {counting}\n{sql}");
        let is_read = page.contains("SEARCH t USING") || page.contains("SCAN t USING INDEX");
        let by_row = page == "SCAN t" && sql.contains("ORDER BY t.id");
        assert!(is_read || by_row, "read from end to end: {page}\n{sql}");
        assert!(sorted || !page.contains("TEMP B-TREE"), "sorted: {page}\n{sql}");
        assert!(
            page.contains("SEARCH") || !page.contains("TEMP B-TREE"),
            "all sorted: {page}\n{sql}"
        );
    }
}

#[tokio::test]
async fn operations_are_read_and_counted_from_an_index() {
    let lists = Lists::new().await;
    let none = |scope: &Scope, column| OperationList {
        scope: scope.clone(),
        organization: None,
        device: None,
        image: None,
        batch: None,
        status: None,
        order: order(column),
        rows: ROWS,
    };
    let id = Uuid::from_u128(1);
    for scope in scopes() {
        for column in ["created", "modified"] {
            let none = || none(&scope, column);
            let by_organization = OperationList { organization: "default".parse().ok(), ..none() };
            let narrowing = [
                OperationList { device: Some(DeviceId(id)), ..none() },
                OperationList { image: Some(ImageId(id)), ..none() },
                OperationList { batch: Some(BatchId(id)), ..none() },
                OperationList { status: Some(Status::Failed), ..none() },
                OperationList { batch: Some(BatchId(id)), status: Some(Status::Failed), ..none() },
            ];
            for (wanted, narrow) in [(none(), false), (by_organization, true)]
                .into_iter()
                .chain(narrowing.map(|w| (w, true)))
            {
                let narrows = wanted.device.is_some()
                    || wanted.image.is_some()
                    || wanted.batch.is_some()
                    || wanted.status.is_some();
                lists.f.store.operations(wanted).await.unwrap();
                lists.check(narrow && scope == Scope::Everything, narrows && column != "created");
            }
        }
    }
}

#[tokio::test]
async fn devices_are_read_and_counted_from_an_index() {
    let lists = Lists::new().await;
    let none = |scope: &Scope, column| DeviceList {
        scope: scope.clone(),
        organization: None,
        state: None,
        name: None,
        board: None,
        online: None,
        duplicate: None,
        group: None,
        location: None,
        tag: None,
        order: order(column),
        rows: ROWS,
    };
    for scope in scopes() {
        for column in ["created", "modified", "name", "last_seen"] {
            let none = || none(&scope, column);
            let by_organization = DeviceList { organization: "default".parse().ok(), ..none() };
            for wanted in [none(), by_organization] {
                lists.f.store.devices(wanted).await.unwrap();
                lists.check(false, false);
            }
            for wanted in [
                DeviceList { state: Some(DeviceState::Pending), ..none() },
                DeviceList { board: Some("x".into()), ..none() },
                DeviceList { name: Some("x".into()), ..none() },
                DeviceList { online: Some(true), ..none() },
                DeviceList { duplicate: Some(true), ..none() },
                DeviceList { group: Some(Uuid::nil()), ..none() },
                DeviceList { location: Some(Uuid::nil()), ..none() },
                DeviceList { tag: Some("x".into()), ..none() },
            ] {
                let by_age = column == "created" && wanted.name.is_none();
                let few = wanted.duplicate.is_some() || wanted.tag.is_some();
                lists.f.store.devices(wanted).await.unwrap();
                lists.check(true, !by_age || few);
            }
        }
    }
}

#[tokio::test]
async fn firmware_of_devices_and_the_audit_log_are_read_from_an_index() {
    let lists = Lists::new().await;
    for column in ["created", "modified"] {
        let wanted = FirmwareList {
            scope: Scope::Everything,
            organization: None,
            device: None,
            image: None,
            order: order(column),
            rows: ROWS,
        };
        lists.f.store.device_firmwares(wanted).await.unwrap();
        let Plan { page, sql, .. } = lists.plan();
        assert!(page.contains("SCAN t USING INDEX") && !page.contains("TEMP"), "{page}\n{sql}");
    }
    let slugs = |some: &[&str]| Some(some.iter().map(|slug| slug.parse().unwrap()).collect());
    for of in [None, slugs(&["a"]), slugs(&["a", "b"])] {
        let none = || AuditList {
            of: of.clone(),
            organization: None,
            actor: None,
            action: None,
            subject: None,
            since: None,
            until: None,
            rows: ROWS,
        };
        let text = || Some("x".to_owned());
        for wanted in [
            none(),
            AuditList { actor: text(), ..none() },
            AuditList { action: text(), ..none() },
            AuditList { subject: text(), ..none() },
            AuditList { organization: "a".parse().ok(), ..none() },
        ] {
            lists.f.store.audit_entries(wanted).await.unwrap();
            lists.check(false, false);
        }
        lists.f.store.audit_entries(AuditList { since: Some(1), ..none() }).await.unwrap();
        lists.check(true, true);
    }
}
