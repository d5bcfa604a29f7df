// Messages over a socket whose other side may be broken.
#include <gtest/gtest.h>

#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <thread>

#include "engine/plugin_host/wire.h"

namespace switchyard {
namespace {

struct Ends {
  Ends() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    here = std::make_unique<Wire>(Descriptor(ends[0]));
    there = Descriptor(ends[1]);
  }
  void raw(const std::string& bytes) const {
    ASSERT_EQ(::write(there.get(), bytes.data(), bytes.size()), ssize_t(bytes.size()));
  }
  std::unique_ptr<Wire> here;
  Descriptor there;
};

TEST(Wire, CarriesArraysBehindALine) {
  Ends ends;
  Wire other(Descriptor(::dup(ends.there.get())));
  Message sent;
  sent.head = {{"op", "x"}};
  const std::vector<float> big(300'000, 1.5f);
  sent.put(std::span<const float>(big));
  std::thread writer([&] { EXPECT_TRUE(other.send(sent)); });
  auto got = ends.here->receive(5000);
  writer.join();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->text("op"), "x");
  std::vector<float> values;
  ASSERT_TRUE(got->take(big.size(), values));
  EXPECT_EQ(values, big);
  EXPECT_FALSE(got->take(1, values));
}

TEST(Wire, GoesOnWhereItWasWhenItWasTired) {
  Ends ends;
  ends.raw("{\"op\":\"x\",\"bytes\":4}\nab");
  EXPECT_EQ(ends.here->receive(20).error().what, "stands still");
  ends.raw("cd{\"op\":\"y\"}\n");
  const auto first = ends.here->receive(1000), second = ends.here->receive(1000);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->body, "abcd");
  EXPECT_EQ(second->text("op"), "y");
}

TEST(Wire, RefusesNonsense) {
  for (const std::string& bytes : {std::string("hello\n"), std::string("[1]\n"),
                                   std::string("{\"bytes\":99999999999}\n"), std::string(5 << 20, 'a')}) {
    Ends ends;
    std::thread writer([&] { (void)!::write(ends.there.get(), bytes.data(), bytes.size()); });
    const auto got = ends.here->receive(5000);
    EXPECT_FALSE(got);
    ends.here.reset();
    writer.join();
  }
  Ends ends;
  ends.there = Descriptor();
  EXPECT_EQ(ends.here->receive(1000).error().what, "ended in the middle of its work");
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
