//! The tests of the microkernel on its machines.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

use core::fmt::Write;
use core::panic::PanicInfo;

use mielin_hal::Text;
use mielin_hal::drivers::{Ns16550, Registers};
use mielin_user::objects::{Frame, Message};
use mielin_user::{Cap, Information, ObjectKind, Rights, Supplies};

mielin_user::program!(main);

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    mielin_user::start::fail()
}

extern "C" fn server(argument: u64) -> ! {
    let endpoint = mielin_user::objects::Endpoint(Cap(argument & 0xffff));
    let reply = mielin_user::objects::Reply(Cap(argument >> 16));
    let mut got = endpoint.receive(Some(reply));
    loop {
        let words = got.map(|got| got.words).unwrap_or([9; 4]);
        got = endpoint.reply_receive(reply, &Message::new(0, [words[0] + words[1]]));
    }
}

fn main(information: Information) -> ! {
    let mut supplies = Supplies::of_first_thread(information);
    let device = information
        .untypeds()
        .find(|u| u.device && u.base <= 0x1000_0000 && 0x1000_0000 < u.base + (1 << u.bits))
        .expect("uart");
    let at = supplies.addresses(4096);
    // frames are cut from the beginning: the uart's page is somewhere in the middle
    let mut left = 0x1000_0000 - device.base;
    let mut parent = device.untyped;
    let mut bits = device.bits;
    while bits > 12 {
        let slot = supplies.slots(2).expect("slots");
        parent
            .retype(ObjectKind::Untyped, bits - 1, 2, supplies.node(), slot)
            .expect("split");
        bits -= 1;
        let half = left >> bits & 1;
        parent = mielin_user::objects::Untyped(Cap(slot + half));
        left &= (1 << bits) - 1;
    }
    let slot = supplies.slot().expect("slot");
    parent
        .retype(ObjectKind::Frame, 12, 1, supplies.node(), slot)
        .expect("frame");
    let frame = Frame(Cap(slot));
    supplies
        .map(frame, supplies.space(), at, Rights::READ.or(Rights::WRITE))
        .expect("map");
    let mut console = Ns16550::new(unsafe { Registers::new(at as usize, 0x100) });
    let mut text = Text(&mut console);
    let _ = writeln!(
        text,
        "suite: hello, {} Hz, kernel {} bytes",
        information.ticks_per_second(),
        information.kernel_bytes()
    );

    let endpoint = supplies.endpoint().expect("endpoint");
    let reply = supplies.reply().expect("reply");
    let spawned = supplies
        .spawn(server, endpoint.0.0 | reply.0.0 << 16)
        .expect("spawn");
    let context = supplies
        .run(spawned.thread, information.scheduling(), 255, 10_000)
        .expect("run");
    mielin_user::objects::give_way();
    context.bind(None).expect("passive");
    let got = endpoint.call(&Message::new(0, [3, 4]));
    let _ = writeln!(text, "suite: {got:?}");
    for n in [1000u64, 2000] {
        let t0 = mielin_user::system_call::now();
        for _ in 0..n {
            let _ = endpoint.call(&Message::new(0, [3, 4]));
        }
        let t = mielin_user::system_call::now() - t0;
        let _ = writeln!(text, "suite: {n} calls {t} ticks");
    }
    let _ = information.power().shut_down(true);
    mielin_user::start::fail()
}
