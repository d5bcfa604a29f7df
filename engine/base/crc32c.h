// CRC-32C (Castagnoli, reflected 0x1EDC6F41, as iSCSI and SSE4.2 compute it), incremental.
// Used for the checksums of trace blocks; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace switchyard {

// crc32c(b, crc32c(a)) == crc32c(a followed by b).
uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before = 0);

// The same without the SSE4.2 instruction: other machines, and a check on the fast one.
uint32_t crc32c_portable(std::span<const std::byte> bytes, uint32_t before = 0);

}  // namespace switchyard
