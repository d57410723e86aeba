//! Lists out of the store: whose rows are visible, which of them are wanted, in what order, and how
//! many at a time.

use rusqlite::{Connection, Row, params_from_iter, types::Value};
use shared::ids::OrganizationId;

use super::StoreError;

/// Whose rows somebody may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    Everything,
    Organizations(Vec<OrganizationId>),
}

impl Scope {
    /// Whether rows of `organization` are visible; shared ones (`None`) are to everybody.
    pub fn sees(&self, organization: Option<OrganizationId>) -> bool {
        match (self, organization) {
            (Self::Everything, _) | (_, None) => true,
            (Self::Organizations(members), Some(organization)) => members.contains(&organization),
        }
    }
}

/// Rows to skip and to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    pub offset: u32,
    pub limit: u32,
}

/// A column to sort by, one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub column: &'static str,
    pub descending: bool,
}

/// Some rows, and how many there are of them altogether.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    pub count: u64,
    pub rows: Vec<T>,
}

/// The rows of the organization with this slug. A join would be made for every row that is counted.
pub(super) const OF_ORGANIZATION: &str =
    "t.organization = (SELECT id FROM organizations WHERE slug = ?)";

/// A WHERE clause that grows condition by condition. The SQL is ours; from outside come only values.
#[derive(Debug, Default)]
pub(super) struct Where {
    sql: String,
    values: Vec<Value>,
}

impl Where {
    /// `condition` has one `?`.
    pub(super) fn and(&mut self, condition: &str, value: impl Into<Value>) -> &mut Self {
        self.push(condition);
        self.values.push(value.into());
        self
    }

    /// As [`Where::and`], for a filter that may be absent.
    pub(super) fn and_if(&mut self, condition: &str, value: Option<impl ToString>) -> &mut Self {
        match value {
            Some(value) => self.and(condition, value.to_string()),
            None => self,
        }
    }

    /// Only rows whose organization in `column`, which is never NULL, is visible.
    pub(super) fn visible(&mut self, column: &str, scope: &Scope) -> &mut Self {
        self.of_members(scope, |marks| format!("{column} IN ({marks})"))
    }

    /// Only rows whose organization in `column` is visible, shared (NULL) ones among them. No index
    /// serves this: it is for small tables.
    pub(super) fn visible_or_shared(&mut self, column: &str, scope: &Scope) -> &mut Self {
        self.of_members(scope, |marks| format!("({column} IS NULL OR {column} IN ({marks}))"))
    }

    /// Only rows whose `column` is one of these.
    pub(super) fn any_of(
        &mut self,
        column: &str,
        values: impl IntoIterator<Item = impl ToString>,
    ) -> &mut Self {
        let values: Vec<_> =
            values.into_iter().map(|value| Value::from(value.to_string())).collect();
        self.push(&format!("{column} IN ({})", vec!["?"; values.len()].join(",")));
        self.values.extend(values);
        self
    }

    fn of_members(&mut self, scope: &Scope, condition: impl Fn(String) -> String) -> &mut Self {
        let Scope::Organizations(members) = scope else {
            return self;
        };
        self.push(&condition(vec!["?"; members.len()].join(",")));
        self.values.extend(members.iter().map(|member| Value::from(member.to_string())));
        self
    }

    /// As [`Where::and`], for one of several values.
    pub(super) fn one_of(&mut self, column: &str, values: &[String]) -> &mut Self {
        let list = serde_json::Value::from(values.to_vec()).to_string();
        self.and(&format!("{column} IN (SELECT value FROM json_each(?))"), list)
    }

    /// The clause, and what belongs in its places.
    pub(super) fn clause(&self) -> (&str, &[Value]) {
        (&self.sql, &self.values)
    }

    fn push(&mut self, condition: &str) {
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(condition);
    }
}

/// Counts and reads `columns` of `from` (a table, or several joined, the first called `t`). What is
/// equal in `order` stands as it came in, which every index knows without sorting.
pub(super) fn list<T>(
    conn: &Connection,
    (columns, from): (&str, &str),
    wanted: &Where,
    order: Order,
    rows: Rows,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Found<T>, StoreError> {
    let filter = &wanted.sql;
    let count = conn
        .prepare_cached(&format!("SELECT count(*) FROM {from}{filter}"))?
        .query_row(params_from_iter(&wanted.values), |row| row.get(0))?;
    let direction = if order.descending { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT {columns} FROM {from}{filter}
         ORDER BY t.{} {direction}, t.rowid {direction} LIMIT ? OFFSET ?",
        order.column,
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let page = [Value::from(rows.limit), Value::from(rows.offset)];
    let found = statement.query_map(params_from_iter(wanted.values.iter().chain(&page)), read)?;
    Ok(Found { count, rows: found.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn plan(from: &str, organization: Option<&str>, column: &str) -> String {
        let mut conn = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut conn, 0).unwrap();
        let mut wanted = Where::default();
        if let Some(column) = organization {
            wanted.visible(column, &Scope::Organizations(vec![OrganizationId(Uuid::nil())]));
        }
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT t.id FROM {from}{}
             ORDER BY t.{column} DESC, t.rowid DESC LIMIT 9",
            wanted.sql,
        );
        let mut statement = conn.prepare(&sql).unwrap();
        let rows = statement
            .query_map(params_from_iter(&wanted.values), |row| row.get::<_, String>("detail"))
            .unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn lists_that_grow_are_read_in_order_from_an_index() {
        for (from, columns) in [
            ("operations t", &["created", "modified"][..]),
            ("devices t", &["created", "modified", "last_seen", "name"]),
            ("device_firmware t", &["created", "modified"]),
        ] {
            for column in columns {
                let plan = plan(from, None, column);
                assert!(plan.contains("USING") && !plan.contains("ORDER BY"), "{from}: {plan}");
            }
        }
    }

    #[test]
    fn a_members_lists_are_read_from_the_index_of_their_organization() {
        for (from, columns) in [
            ("operations t", &["created", "modified"][..]),
            ("devices t", &["created", "modified", "last_seen"]),
        ] {
            for column in columns {
                let plan = plan(from, Some("t.organization"), column);
                assert!(plan.contains("(organization=?)"), "{from} by {column}: {plan}");
                assert!(!plan.contains("ORDER BY"), "{from} by {column}: {plan}");
            }
        }
    }
}
