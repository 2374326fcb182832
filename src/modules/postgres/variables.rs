//! `$postgres_...`: what is known of the last result.

use bytes::Bytes;

use super::result::Collected;
use crate::config::{Cx, Value, VarId, VariableRow};
use crate::http::Request;

/// The rows that this file brings. The values are assigned when a result comes; until then there are none.
pub(super) const VARIABLES: &[VariableRow] = &[
    VariableRow::new("postgres_columns", none, "Columns of the result; 0 for a command without one. As in 2015.")
        .volatile(),
    VariableRow::new("postgres_rows", none, "Rows of the result; 0 for a command without one. As in 2015.").volatile(),
    VariableRow::new("postgres_affected", none, "Rows that the command changed. As in 2015.").volatile(),
    VariableRow::new("postgres_query", none, "The statement as it was sent.").volatile(),
    VariableRow::new("postgres_nfields", none, "Columns of the result, if it is one with rows.").volatile(),
    VariableRow::new("postgres_ntuples", none, "Rows of the result, if it is one with rows.").volatile(),
    VariableRow::new("postgres_cmdtuples", none, "Rows that the command changed.").volatile(),
    VariableRow::new("postgres_cmdstatus", none, "What the command did: `UPDATE 2`.").volatile(),
    VariableRow::new("postgres_error", none, "The error of the last statement.").volatile(),
];

fn none(_: &Request, _: &str) -> Value {
    None
}

/// The numbers of the variables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) columns: VarId,
    pub(super) rows: VarId,
    pub(super) affected: VarId,
    pub(super) query: VarId,
    pub(super) nfields: VarId,
    pub(super) ntuples: VarId,
    pub(super) cmdtuples: VarId,
    pub(super) cmdstatus: VarId,
    pub(super) error: VarId,
}

impl Facts {
    /// Gives them numbers in a configuration.
    pub(super) fn declare(cx: &mut Cx<'_>) -> Self {
        let mut id = |name| cx.variables().used(name, None);
        Self {
            columns: id("postgres_columns"),
            rows: id("postgres_rows"),
            affected: id("postgres_affected"),
            query: id("postgres_query"),
            nfields: id("postgres_nfields"),
            ntuples: id("postgres_ntuples"),
            cmdtuples: id("postgres_cmdtuples"),
            cmdstatus: id("postgres_cmdstatus"),
            error: id("postgres_error"),
        }
    }

    /// Before a statement is sent nothing is known of it but its text.
    pub(super) fn sent(&self, request: &mut Request, sql: &str) {
        let unknown = [
            self.columns,
            self.rows,
            self.affected,
            self.nfields,
            self.ntuples,
            self.cmdtuples,
            self.cmdstatus,
            self.error,
        ];
        for id in unknown {
            request.set_variable(id, None);
        }
        request.set_variable(self.query, Some(Bytes::copy_from_slice(sql.as_bytes())));
    }

    /// When the result comes it is known.
    pub(super) fn came(&self, request: &mut Request, result: &Collected) {
        let number = |number: usize| Some(Bytes::from(number.to_string()));
        let affected = result.affected().map(|rows| Bytes::from(rows.to_string()));
        // How many rows there are shows at the end, which a long answer does not await.
        let rows = number(result.rows.len()).filter(|_| result.is_whole);
        let fields = number(result.columns.len());
        request.set_variable(self.columns, fields.clone());
        request.set_variable(self.rows, rows.clone());
        request.set_variable(self.affected, affected.clone());
        request.set_variable(self.nfields, fields.filter(|_| result.has_rows()));
        request.set_variable(self.ntuples, rows.filter(|_| result.has_rows()));
        request.set_variable(self.cmdtuples, affected);
        request.set_variable(self.cmdstatus, Some(result.tag.clone().into()));
    }
}
