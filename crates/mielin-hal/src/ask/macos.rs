//! `sysctlbyname` and the power sources of IOKit, on macOS.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::ptr;
use std::string::{String, ToString};
use std::vec::Vec;

use objc2_core_foundation::{
    CFArray, CFBoolean, CFDictionary, CFNumber, CFRetained, CFString, CFType, ConcreteType,
};
use objc2_io_kit::{
    IOPSCopyPowerSourcesInfo, IOPSCopyPowerSourcesList, IOPSGetPowerSourceDescription,
    IOPSGetProvidingPowerSourceType, kIOPSCurrentCapacityKey, kIOPSIsChargingKey,
    kIOPSIsPresentKey, kIOPSMaxCapacityKey, kIOPSPowerSourceStateKey, kIOPSTypeKey,
};

use crate::macos::PowerSourceDescription;

/// What `sysctlbyname` says: the bytes of a value, if there are at most so many.
pub(crate) fn system_control(name: &str, bytes_max: usize) -> Option<Vec<u8>> {
    let name = CString::new(name).ok()?;
    let mut value = std::vec![0_u8; bytes_max];
    let mut len = value.len();
    // SAFETY: the name ends with a zero; `len` is how many bytes there are at `value`, and the kernel writes no more
    // than that; both outlive the call. Nothing is set, because the new value is null (sysctl(3)).
    let status = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            &raw mut len,
            ptr::null_mut(),
            0,
        )
    };
    if status != 0 || len > value.len() {
        return None;
    }
    value.truncate(len);
    Some(value)
}

/// What the machine draws from, and descriptions of its power sources, of one moment.
pub(crate) fn power_sources() -> (Option<String>, Vec<PowerSourceDescription>) {
    let Some(snapshot) = IOPSCopyPowerSourcesInfo() else {
        return (None, Vec::new());
    };
    // SAFETY: it is given what `IOPSCopyPowerSourcesInfo` returned, as `IOPowerSources.h` demands.
    let providing = unsafe { IOPSGetProvidingPowerSourceType(Some(&snapshot)) };
    let providing = providing.map(|name| name.to_string());
    // SAFETY: likewise.
    let Some(sources) = (unsafe { IOPSCopyPowerSourcesList(Some(&snapshot)) }) else {
        return (providing, Vec::new());
    };
    // SAFETY: `IOPowerSources.h` promises an array of values of Core Foundation.
    let sources = unsafe { CFRetained::cast_unchecked::<CFArray<CFType>>(sources) };
    let descriptions = sources.iter().filter_map(|source| {
        // SAFETY: the source is an element of the list that was made of this snapshot.
        let description = unsafe { IOPSGetPowerSourceDescription(Some(&snapshot), Some(&source)) }?;
        // SAFETY: the keys in `IOPSKeys.h` are strings, and every value in a dictionary of properties is one of Core
        // Foundation; which, `value` asks each.
        let description =
            unsafe { CFRetained::cast_unchecked::<CFDictionary<CFString, CFType>>(description) };
        Some(describe(&description))
    });
    (providing, descriptions.collect())
}

fn describe(source: &CFDictionary<CFString, CFType>) -> PowerSourceDescription {
    let text = |key| value::<CFString>(source, key).map(|text| text.to_string());
    let truth = |key| value::<CFBoolean>(source, key).map(|truth| truth.as_bool());
    let number = |key| value::<CFNumber>(source, key).and_then(|number| number.as_i64());
    PowerSourceDescription {
        kind: text(kIOPSTypeKey),
        state: text(kIOPSPowerSourceStateKey),
        is_present: truth(kIOPSIsPresentKey),
        is_charging: truth(kIOPSIsChargingKey),
        current_capacity: number(kIOPSCurrentCapacityKey),
        max_capacity: number(kIOPSMaxCapacityKey),
    }
}

/// The value of a key, if there is one and it is of this type.
fn value<T: ConcreteType>(
    source: &CFDictionary<CFString, CFType>,
    key: &CStr,
) -> Option<CFRetained<T>> {
    let key = CFString::from_str(key.to_str().ok()?);
    source.get(&key)?.downcast().ok()
}
