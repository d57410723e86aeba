//! What a modem says unasked.

use crate::random::Random;

/// Known ones, one that nobody knows, and a message whose text would pass for an answer.
const CODES: &[&str] = &[
    "\r\n+CREG: 1\r\n",
    "\r\n+CEREG: 1\r\n",
    "\r\n+CEREG: 1,\"1A2B\",\"01C3D4E5\",7\r\n",
    "\r\n+CGEV: NW DETACH\r\n",
    "\r\n#QSS: 1\r\n",
    "\r\n#STN: 37\r\n",
    "\r\nRING\r\n",
    "\r\nNO CARRIER\r\n",
    "\r\n+CTZV: +4\r\n",
    "\r\n#NOBODYKNOWS: 1,2\r\n",
    "\r\n+CMT: \"+491700000000\",,\"26/11/21,22:00:00+04\"\r\nOK\r\n",
    "\r\n+CMT: \"+491700000000\",,\"26/11/21,22:00:00+04\"\r\nM0R.099999\r\n",
];

pub fn draw(random: &mut Random) -> &'static [u8] {
    random.pick(CODES).map_or(b"", |code| code.as_bytes())
}
