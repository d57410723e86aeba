//! Lists that grow with the fleet, in every combination of what they are filtered and ordered by: none is
//! read from end to end, what they count is counted inside an index, and none is sorted; but for what is named.

use shared::ids::{BatchId, BuildId, CategoryId, ImageId, OrganizationId, UserId};

use super::*;
use crate::store::account::UserList;
use crate::store::audit::AuditList;
use crate::store::batch::{AbsentList, BatchList};
use crate::store::build::BuildList;
use crate::store::category::CategoryList;
use crate::store::device::DeviceList;
use crate::store::enrolment_token::EnrolmentTokenList;
use crate::store::firmware::FirmwareList;
use crate::store::image::ImageList;
use crate::store::listing::plans::{self, Plan};
use crate::store::place::{Kind, PlaceList};

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

    /// Counted and read by this key.
    #[track_caller]
    fn check_found_by(&self, key: &str) {
        let Plan { counting, page, sql } = self.plan();
        assert!(counting.contains(key) && page.contains(key), "{counting}\n{page}\n{sql}");
    }

    /// Read in the order of an index.
    #[track_caller]
    fn check_unsorted(&self) {
        let Plan { page, sql, .. } = self.plan();
        assert!(page.contains("SCAN t USING INDEX"), "{page}\n{sql}");
        assert!(!page.contains("TEMP B-TREE"), "sorted: {page}\n{sql}");
    }

    /// Counted inside an index, and read from one in the order asked for, but for what is excepted.
    #[track_caller]
    fn check(&self, but: But) {
        let Plan { counting, page, sql } = self.plan();
        let is_search = counting.contains("SEARCH t USING");
        let counted = counting.contains("COVERING INDEX") || (but.counted_by_row && is_search);
        assert!(counted, "counted row by row: {counting}\n{sql}");
        let is_read = page.contains("SEARCH t USING") || page.contains("SCAN t USING INDEX");
        let by_row = page == "SCAN t" && sql.contains("ORDER BY t.id");
        assert!(is_read || by_row, "read from end to end: {page}\n{sql}");
        assert!(but.sorted || !page.contains("TEMP B-TREE"), "sorted: {page}\n{sql}");
        assert!(
            page.contains("SEARCH") || !page.contains("TEMP B-TREE"),
            "all sorted: {page}\n{sql}"
        );
        for column in but.found_by {
            assert!(page.contains(&format!("{column}=?")), "{column} is no key: {page}\n{sql}");
        }
    }
}

/// What is not asked of a plan, and what is.
#[derive(Default)]
struct But {
    /// A filter leaves few rows, or the rows of a part that nobody has much of.
    counted_by_row: bool,
    sorted: bool,
    found_by: &'static [&'static str],
}

impl But {
    const FEW: Self = Self { counted_by_row: true, sorted: true, found_by: &[] };

    fn found_by(found_by: &'static [&'static str]) -> Self {
        Self { found_by, ..Self::default() }
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
    let organization = lists.f.store.organizations().await.unwrap().remove(0).id;
    let image = lists.f.image("v2").await;
    let batch = batch::create(&lists.f, image).await;
    let id = Uuid::from_u128(1);
    let scopes = scopes().map(|scope| match scope {
        Scope::Everything => scope,
        Scope::Organizations(ids) => {
            Scope::Organizations(ids.into_iter().skip(1).chain([organization]).collect())
        }
    });
    for scope in scopes {
        let one = matches!(&scope, Scope::Organizations(ids) if ids.len() == 1);
        for column in ["created", "modified"] {
            let none = || none(&scope, column);
            let newest_word = column == "modified";
            let by = |found_by| But::found_by(found_by);
            // By `modified` each more narrow filter would need one more index that every word of a device changes.
            let sorted = |found_by| But { sorted: newest_word, found_by, ..But::default() };
            let failed = Some(Status::Failed);
            let batch = Some(batch);
            for (wanted, but) in [
                (none(), But::default()),
                (
                    OperationList { organization: "default".parse().ok(), ..none() },
                    But { counted_by_row: scope != Scope::Everything, ..But::default() },
                ),
                (
                    OperationList { device: Some(DeviceId(id)), ..none() },
                    But { found_by: &["device"], ..But::FEW },
                ),
                (OperationList { batch, ..none() }, by(&["batch"])),
                (OperationList { batch, status: failed, ..none() }, by(&["batch", "status"])),
                (
                    OperationList { batch, status: Some(Status::InProgress), ..none() },
                    sorted(&["batch", "status"]),
                ),
                (
                    OperationList { status: failed, ..none() },
                    sorted(if one { &["organization", "status"] } else { &["status"] }),
                ),
                (
                    OperationList { image: Some(ImageId(id)), ..none() },
                    sorted(if one { &["organization", "image"] } else { &["image"] }),
                ),
            ] {
                lists.f.store.operations(wanted).await.unwrap();
                lists.check(but);
            }
        }
    }
}

#[tokio::test]
async fn a_batch_is_listed_for_those_who_may_see_it() {
    let f = Fixture::new().await;
    let (image, device) = (f.image("v2").await, f.device(1).await);
    let batch = batch::launch(&f, image, &[device]).await;
    let own = f.store.organizations().await.unwrap().remove(0).id;
    let count = async |scope, slug: Option<&str>, batch| {
        let wanted = OperationList {
            scope,
            organization: slug.map(|slug| slug.parse().unwrap()),
            device: None,
            image: None,
            batch: Some(batch),
            status: Some(Status::Idle),
            order: order("modified"),
            rows: ROWS,
        };
        f.store.operations(wanted).await.unwrap().count
    };
    let stranger = Scope::Organizations(vec![OrganizationId(Uuid::from_u128(7))]);
    assert_eq!(count(Scope::Everything, None, batch).await, 1);
    assert_eq!(count(Scope::Organizations(vec![own]), Some("default"), batch).await, 1);
    assert_eq!(count(stranger, None, batch).await, 0);
    assert_eq!(count(Scope::Everything, Some("other"), batch).await, 0);
    assert_eq!(count(Scope::Everything, None, BatchId(Uuid::nil())).await, 0);
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
                lists.check(But::default());
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
                // A fleet's devices are fewer than its operations, and their rows smaller.
                lists.check(But { sorted: !by_age || few, ..But::FEW });
            }
        }
    }
}

#[tokio::test]
async fn firmware_of_devices_and_the_audit_log_are_read_from_an_index() {
    let lists = Lists::new().await;
    for scope in scopes() {
        for column in ["created", "modified"] {
            for organization in [None, "default".parse().ok()] {
                let narrowed = organization.is_some() && scope != Scope::Everything;
                let wanted = FirmwareList {
                    scope: scope.clone(),
                    organization,
                    device: None,
                    image: None,
                    order: order(column),
                    rows: ROWS,
                };
                lists.f.store.device_firmwares(wanted).await.unwrap();
                lists.check(But { counted_by_row: narrowed, ..But::default() });
            }
        }
    }
    let slugs = |some: &[&str]| Some(some.iter().map(|slug| slug.parse().unwrap()).collect());
    for of in [None, slugs(&["a"]), slugs(&["a", "b"])] {
        let none = || AuditList { of: of.clone(), ..AuditList::newest(ROWS.limit) };
        let text = || Some("x".to_owned());
        for wanted in [
            none(),
            AuditList { actor: text(), ..none() },
            AuditList { action: text(), ..none() },
            AuditList { subject: text(), ..none() },
            AuditList { organization: "a".parse().ok(), ..none() },
            AuditList { order: Order { column: "id", descending: false }, ..none() },
        ] {
            lists.f.store.audit_entries(wanted).await.unwrap();
            lists.check(But { counted_by_row: true, ..But::default() });
        }
        let object = Some(Uuid::nil().to_string());
        lists.f.store.audit_entries(AuditList { subject: object, ..none() }).await.unwrap();
        lists.check_found_by("SEARCH g USING PRIMARY KEY (object=?)");
        lists.f.store.audit_entries(AuditList { since: Some(1), ..none() }).await.unwrap();
        lists.check(But::FEW);
    }
}

#[tokio::test]
async fn batches_are_read_and_counted_from_an_index() {
    let lists = Lists::new().await;
    for scope in scopes() {
        for column in ["created", "modified"] {
            let none = || BatchList {
                scope: scope.clone(),
                organization: None,
                build: None,
                status: None,
                order: order(column),
                rows: ROWS,
            };
            lists.f.store.batches(none()).await.unwrap();
            lists.check(But::default());
            for wanted in [
                BatchList { organization: "default".parse().ok(), ..none() },
                BatchList { build: Some(BuildId(Uuid::nil())), ..none() },
                BatchList { status: Some(Status::Idle), ..none() },
            ] {
                lists.f.store.batches(wanted).await.unwrap();
                // A fleet's batches are thousands at most.
                lists.check(But::FEW);
            }
        }
    }
}

#[tokio::test]
async fn what_belongs_to_one_thing_is_found_by_that() {
    let lists = Lists::new().await;
    let store = &lists.f.store;
    for column in ["created", "name"] {
        store.own_tokens(UserId(Uuid::nil()), order(column), ROWS).await.unwrap();
        lists.check_found_by("user=?");
    }
    store.members(OrganizationId(Uuid::nil()), order("name"), ROWS).await.unwrap();
    lists.check_found_by("organization=?");
    let left_out = AbsentList { batch: BatchId(Uuid::nil()), order: order("created"), rows: ROWS };
    store.left_out(left_out).await.unwrap();
    lists.check(But::found_by(&["batch"]));
    for column in ["created", "modified", "type"] {
        let (build, organization, tool) = (BuildId(Uuid::nil()), None, None);
        let wanted = ImageList { build, organization, tool, order: order(column), rows: ROWS };
        store.images(wanted).await.unwrap();
        lists.check_found_by("build=?");
    }
    for column in ["created", "modified", "version"] {
        let category = Some(CategoryId(Uuid::nil()));
        for scope in scopes() {
            store.builds(BuildList { category, ..builds(&scope, column) }).await.unwrap();
            lists.check_found_by("category=?");
        }
    }
    let [_, own, _] = scopes();
    for column in ["created", "modified", "name"] {
        for kind in [Kind::Group, Kind::Location] {
            store.places(kind, places(&own, column)).await.unwrap();
            lists.check_found_by("organization=?");
        }
    }
    for column in ["created", "name"] {
        let (organization, order) = (None, order(column));
        let wanted = EnrolmentTokenList { scope: own.clone(), organization, order, rows: ROWS };
        store.enrolment_tokens(wanted).await.unwrap();
        lists.check_found_by("organization=?");
    }
}

/// What people make one by one is never much: it is sorted where nobody has asked for its usual order.
#[tokio::test]
async fn what_people_make_is_read_from_an_index_in_its_usual_order() {
    let lists = Lists::new().await;
    let store = &lists.f.store;
    for scope in scopes() {
        store.builds(builds(&scope, "created")).await.unwrap();
        lists.check_unsorted();
        let (organization, name, order) = (None, None, order("created"));
        let wanted = CategoryList { scope: scope.clone(), organization, name, order, rows: ROWS };
        store.categories(wanted).await.unwrap();
        lists.check_unsorted();
    }
    for kind in [Kind::Group, Kind::Location] {
        store.places(kind, places(&Scope::Everything, "created")).await.unwrap();
        lists.check_unsorted();
    }
    for column in ["created", "name"] {
        let (name, active, superuser, organization) = (None, None, None, None);
        let order = order(column);
        let wanted = UserList { name, active, superuser, organization, order, rows: ROWS };
        store.users(wanted).await.unwrap();
        lists.check_unsorted();
    }
}

fn builds(scope: &Scope, column: &'static str) -> BuildList {
    BuildList {
        scope: scope.clone(),
        organization: None,
        category: None,
        version: None,
        modem_model: None,
        order: order(column),
        rows: ROWS,
    }
}

fn places(scope: &Scope, column: &'static str) -> PlaceList {
    PlaceList {
        scope: scope.clone(),
        organization: None,
        name: None,
        order: order(column),
        rows: ROWS,
    }
}
