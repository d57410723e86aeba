/* With OPENSSL_SMALL, ring's C code has neither the table of 150 kB that makes P-256 faster nor that of 30 kB for
 * Curve25519, as it has neither for ARM and MIPS, where it defines that by itself. For aarch64 its Rust code goes on
 * to ask for one function of the P-256 that is left out; this is that one, by way of the one that is there. RING is
 * the prefix of all its names, which holds its version: with another one, the linker says what is missing. */

#include <stdint.h>

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

void JOIN(RING, p256_point_mul_base)(uint64_t point[3][4], const uint64_t scalar[4]);

void JOIN(RING, p256_point_mul_base_vartime)(uint64_t point[3][4], const uint64_t scalar[4]) {
  JOIN(RING, p256_point_mul_base)(point, scalar);
}
