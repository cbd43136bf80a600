//! What single instructions do with NaNs.

use wasmparser::Operator;

use super::Lanes;
use super::webs::Value;

/// What an instruction does with NaNs.
pub(super) enum Kind {
    /// The same with any NaN, and its result may be any.
    Computes(Lanes, Lanes),
    /// The same with any NaN; its result is none.
    Reads(Lanes),
    /// The same; its result is a mask.
    Compares(Lanes),
    /// Makes numbers of integers.
    Converts(Lanes),
    Other,
}

pub(super) fn kind(operator: &Operator<'_>) -> Kind {
    use Lanes::{F32, F32x4, F64, F64x2};
    use Operator as O;
    match operator {
        O::F32Add
        | O::F32Sub
        | O::F32Mul
        | O::F32Div
        | O::F32Min
        | O::F32Max
        | O::F32Sqrt
        | O::F32Ceil
        | O::F32Floor
        | O::F32Trunc
        | O::F32Nearest => Kind::Computes(F32, F32),
        O::F64Add
        | O::F64Sub
        | O::F64Mul
        | O::F64Div
        | O::F64Min
        | O::F64Max
        | O::F64Sqrt
        | O::F64Ceil
        | O::F64Floor
        | O::F64Trunc
        | O::F64Nearest => Kind::Computes(F64, F64),
        O::F32x4Add
        | O::F32x4Sub
        | O::F32x4Mul
        | O::F32x4Div
        | O::F32x4Min
        | O::F32x4Max
        | O::F32x4Sqrt
        | O::F32x4Ceil
        | O::F32x4Floor
        | O::F32x4Trunc
        | O::F32x4Nearest
        | O::F32x4RelaxedMadd
        | O::F32x4RelaxedNmadd
        | O::F32x4RelaxedMin
        | O::F32x4RelaxedMax => Kind::Computes(F32x4, F32x4),
        O::F64x2Add
        | O::F64x2Sub
        | O::F64x2Mul
        | O::F64x2Div
        | O::F64x2Min
        | O::F64x2Max
        | O::F64x2Sqrt
        | O::F64x2Ceil
        | O::F64x2Floor
        | O::F64x2Trunc
        | O::F64x2Nearest
        | O::F64x2RelaxedMadd
        | O::F64x2RelaxedNmadd
        | O::F64x2RelaxedMin
        | O::F64x2RelaxedMax => Kind::Computes(F64x2, F64x2),
        O::F32DemoteF64 => Kind::Computes(F64, F32),
        O::F64PromoteF32 => Kind::Computes(F32, F64),
        O::F32x4DemoteF64x2Zero => Kind::Computes(F64x2, F32x4),
        O::F64x2PromoteLowF32x4 => Kind::Computes(F32x4, F64x2),
        O::F32Eq
        | O::F32Ne
        | O::F32Lt
        | O::F32Gt
        | O::F32Le
        | O::F32Ge
        | O::I32TruncF32S
        | O::I32TruncF32U
        | O::I64TruncF32S
        | O::I64TruncF32U
        | O::I32TruncSatF32S
        | O::I32TruncSatF32U
        | O::I64TruncSatF32S
        | O::I64TruncSatF32U => Kind::Reads(F32),
        O::F64Eq
        | O::F64Ne
        | O::F64Lt
        | O::F64Gt
        | O::F64Le
        | O::F64Ge
        | O::I32TruncF64S
        | O::I32TruncF64U
        | O::I64TruncF64S
        | O::I64TruncF64U
        | O::I32TruncSatF64S
        | O::I32TruncSatF64U
        | O::I64TruncSatF64S
        | O::I64TruncSatF64U => Kind::Reads(F64),
        O::F32x4Eq | O::F32x4Ne | O::F32x4Lt | O::F32x4Gt | O::F32x4Le | O::F32x4Ge => {
            Kind::Compares(F32x4)
        }
        O::F64x2Eq | O::F64x2Ne | O::F64x2Lt | O::F64x2Gt | O::F64x2Le | O::F64x2Ge => {
            Kind::Compares(F64x2)
        }
        O::I32x4TruncSatF32x4S | O::I32x4TruncSatF32x4U => Kind::Reads(F32x4),
        O::I32x4TruncSatF64x2SZero | O::I32x4TruncSatF64x2UZero => Kind::Reads(F64x2),
        O::F32ConvertI32S
        | O::F32ConvertI32U
        | O::F32ConvertI64S
        | O::F32ConvertI64U
        | O::F32x4ConvertI32x4S
        | O::F32x4ConvertI32x4U => Kind::Converts(F32),
        O::F64ConvertI32S
        | O::F64ConvertI32U
        | O::F64ConvertI64S
        | O::F64ConvertI64U
        | O::F64x2ConvertLowI32x4S
        | O::F64x2ConvertLowI32x4U => Kind::Converts(F64),
        _ => Kind::Other,
    }
}

pub(super) fn constant(operator: &Operator<'_>) -> Value {
    let are_numbers = |bytes: &[u8; 16]| {
        let mut singles = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
        let mut doubles = bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b));
        let (f32, f64) = (!singles.any(f32::is_nan), !doubles.any(f64::is_nan));
        Value::Number { f32, f64 }
    };
    match *operator {
        Operator::F32Const { value } => Value::Number {
            f32: !f32::from_bits(value.bits()).is_nan(),
            f64: false,
        },
        Operator::F64Const { value } => Value::Number {
            f32: false,
            f64: !f64::from_bits(value.bits()).is_nan(),
        },
        Operator::V128Const { value } => are_numbers(value.bytes()),
        _ => Value::Fixed,
    }
}

/// Whether a shuffle moves nothing but whole lanes of so many bytes.
pub(super) fn moves_whole<const BYTES: usize>(lanes: &[u8; 16]) -> bool {
    lanes.as_chunks::<BYTES>().0.iter().all(|lane| {
        let first = usize::from(lane[0]);
        let mut places = (first..).zip(lane);
        first.is_multiple_of(BYTES) && places.all(|(place, byte)| place == usize::from(*byte))
    })
}

/// Branches and blocks of proposals that no engine here has.
pub(super) fn goes_elsewhere(operator: &Operator<'_>) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::TryTable { .. }
            | O::Try { .. }
            | O::Catch { .. }
            | O::CatchAll
            | O::Delegate { .. }
            | O::BrOnNull { .. }
            | O::BrOnNonNull { .. }
            | O::BrOnCast { .. }
            | O::BrOnCastFail { .. }
            | O::BrOnCastDescEq { .. }
            | O::BrOnCastDescEqFail { .. }
            | O::Resume { .. }
            | O::ResumeThrow { .. }
            | O::ResumeThrowRef { .. }
            | O::Switch { .. }
    )
}

pub(super) fn does_not_go_on(operator: &Operator<'_>) -> bool {
    use Operator as O;
    matches!(
        operator,
        O::Unreachable
            | O::Return
            | O::ReturnCall { .. }
            | O::ReturnCallIndirect { .. }
            | O::ReturnCallRef { .. }
            | O::Throw { .. }
            | O::ThrowRef
            | O::Rethrow { .. }
    )
}
