// CRC-32C against published vectors, and the fast path against the plain one.
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "engine/base/crc32c.h"

namespace switchyard {
namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// RFC 3720, appendix B.4, and the usual check value of "123456789".
TEST(Crc32c, MatchesThePublishedVectors) {
  std::vector<std::byte> rising(32);
  for (int i = 0; i < 32; ++i) rising[i] = std::byte(i);
  EXPECT_EQ(crc32c({}), 0u);
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xE3069283u);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0})), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::vector<std::byte>(32, std::byte{0xFF})), 0x62A8AB43u);
  EXPECT_EQ(crc32c(rising), 0x46DD794Eu);
}

TEST(Crc32c, PartsChainAndBothPathsAgree) {
  EXPECT_TRUE(rc::check([](const std::string& left, const std::string& right) {
    const auto a = bytes_of(left), b = bytes_of(right), both = bytes_of(left + right);
    RC_ASSERT(crc32c(b, crc32c(a)) == crc32c(both));
    RC_ASSERT(crc32c_portable(both) == crc32c(both));
  }));
}

}  // namespace
}  // namespace switchyard
