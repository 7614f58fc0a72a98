//! What a token may do: the scopes, and the roles that are nothing but sets of them.

use std::collections::BTreeSet;
use std::fmt;

macro_rules! scopes {
    ($($variant:ident => $text:literal),+ $(,)?) => {
        /// One thing that a token may do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Scope {
            $(#[doc = concat!("`", $text, "`")] $variant),+
        }

        impl Scope {
            /// Every scope there is.
            pub const ALL: &'static [Scope] = &[$(Scope::$variant),+];

            /// Its name in tokens and in JSON.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Scope::$variant => $text),+ }
            }
        }
    };
}

scopes! {
    ExecutionRun => "execution:run",
    ExecutionRead => "execution:read",
    SandboxWrite => "sandbox:write",
    SandboxRead => "sandbox:read",
    FunctionWrite => "function:write",
    FunctionInvoke => "function:invoke",
    FunctionRead => "function:read",
    ImageRead => "image:read",
    UsageRead => "usage:read",
    QuotaRead => "quota:read",
    TokenWrite => "token:write",
    LedgerRead => "ledger:read",
    ExportRead => "export:read",
    RateRead => "rate:read",
    TenantAdmin => "tenant:admin",
    QuotaWrite => "quota:write",
    RateWrite => "rate:write",
    ImageWrite => "image:write",
    LedgerAdjust => "ledger:adjust",
    LedgerApprove => "ledger:approve",
    PeriodClose => "period:close",
    AuditRead => "audit:read",
}

impl Scope {
    /// The scope of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Scope> {
        Scope::ALL
            .iter()
            .copied()
            .find(|scope| scope.name() == name)
    }

    /// Whether a tenant's token may never carry it.
    #[must_use]
    pub fn is_operators(self) -> bool {
        use Scope::{
            AuditRead, ImageWrite, LedgerAdjust, LedgerApprove, PeriodClose, QuotaWrite, RateWrite,
            TenantAdmin,
        };
        matches!(
            self,
            TenantAdmin
                | QuotaWrite
                | RateWrite
                | ImageWrite
                | LedgerAdjust
                | LedgerApprove
                | PeriodClose
                | AuditRead
        )
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A named set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An operator who may do everything but approve adjustments and close periods.
    Admin,
    /// An operator who approves adjustments and closes periods.
    Finance,
    /// An operator who may read everything and change nothing.
    Auditor,
    /// A tenant's owner.
    Owner,
    /// A tenant's developer.
    Developer,
    /// A tenant's machine that runs code.
    Runner,
    /// A tenant's bookkeeper.
    Billing,
}

impl Role {
    /// Every role, with its name.
    pub const ALL: &'static [(Role, &'static str)] = &[
        (Role::Admin, "admin"),
        (Role::Finance, "finance"),
        (Role::Auditor, "auditor"),
        (Role::Owner, "owner"),
        (Role::Developer, "developer"),
        (Role::Runner, "runner"),
        (Role::Billing, "billing"),
    ];

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Role> {
        Role::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(role, _)| *role)
    }

    /// Whether it is for tokens that name no tenant.
    #[must_use]
    pub fn is_operators(self) -> bool {
        matches!(self, Role::Admin | Role::Finance | Role::Auditor)
    }

    /// What it may do.
    #[must_use]
    pub fn scopes(self) -> BTreeSet<Scope> {
        use Scope::{
            AuditRead, ExecutionRead, ExecutionRun, ExportRead, FunctionInvoke, FunctionRead,
            FunctionWrite, ImageRead, LedgerApprove, LedgerRead, PeriodClose, QuotaRead, RateRead,
            SandboxRead, SandboxWrite, TokenWrite, UsageRead,
        };
        const DEVELOPER: [Scope; 10] = [
            ExecutionRun,
            ExecutionRead,
            SandboxWrite,
            SandboxRead,
            FunctionWrite,
            FunctionInvoke,
            FunctionRead,
            ImageRead,
            UsageRead,
            QuotaRead,
        ];
        const BILLING: [Scope; 5] = [UsageRead, LedgerRead, ExportRead, QuotaRead, RateRead];
        let all = Scope::ALL.iter().copied();
        match self {
            Role::Admin => all
                .filter(|s| !matches!(s, LedgerApprove | PeriodClose))
                .collect(),
            Role::Finance => {
                let own = [UsageRead, LedgerRead, ExportRead, AuditRead, RateRead];
                own.into_iter()
                    .chain([LedgerApprove, PeriodClose])
                    .collect()
            }
            Role::Auditor => all.filter(|s| s.name().ends_with(":read")).collect(),
            Role::Owner => DEVELOPER
                .into_iter()
                .chain(BILLING)
                .chain([TokenWrite])
                .collect(),
            Role::Developer => DEVELOPER.into_iter().collect(),
            Role::Runner => [ExecutionRun, ExecutionRead, FunctionInvoke]
                .into_iter()
                .collect(),
            Role::Billing => BILLING.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_roles_never_hold_an_operators_scope() {
        for (role, name) in Role::ALL {
            let operators = role.scopes().into_iter().any(Scope::is_operators);
            assert_eq!(operators, role.is_operators(), "{name}");
        }
    }

    #[test]
    fn those_who_adjust_cannot_approve() {
        for (role, name) in Role::ALL {
            let scopes = role.scopes();
            let both = [Scope::LedgerAdjust, Scope::LedgerApprove];
            assert!(!both.iter().all(|scope| scopes.contains(scope)), "{name}");
        }
    }

    #[test]
    fn names_and_scopes_are_one_to_one() {
        for scope in Scope::ALL {
            assert_eq!(Scope::from_name(scope.name()), Some(*scope));
        }
        assert_eq!(Scope::from_name("execution"), None);
    }
}
