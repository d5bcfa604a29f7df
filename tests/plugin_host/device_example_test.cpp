// The device source of the example noisy-gate, compiled by the host's compiler, against its host function: no backend
// compiles it yet, and it shall be right when one does. Bit for bit: both are the same arithmetic.
#include <gtest/gtest.h>

#include <math.h>

#include <random>

#include "engine/plugin_host/code.h"

#define __device__
#include "plugins/examples/noisy-gate/noisy_gate.cpp"
#include "plugins/examples/noisy-gate/noisy_gate.cu"
#undef __device__

namespace switchyard {
namespace {

TEST(DeviceExample, DecidesAsTheHostFunction) {
  sy_host host{};
  host.struct_size = sizeof host;
  host.random = plugin_random;
  sy::detail::host() = &host;
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 2);
  NoisyTopK scheme;
  for (const auto& [experts, k] : {std::pair(4u, 2u), {8u, 1u}, {60u, 4u}, {128u, 8u}}) {
    for (uint64_t position = 0; position < 50; ++position) {
      std::vector<float> logits(experts), uniform(2 * experts), noisy(experts), weight(k), device_weight(k);
      for (float& one : logits) one = normal(random);
      if (position % 3 == 0) logits[position % experts] = -INFINITY;
      std::vector<int32_t> id(k), device_id(k);
      uint32_t count = 0;
      const double parameters[] = {0.25 * double(position % 5), double(position)};
      sy_scheme_in in{};
      in.struct_size = sizeof in, in.tokens = 1, in.experts = experts, in.k = k, in.slots = k, in.row = 2;
      in.parameters = parameters, in.logits = logits.data(), in.positions = &position;
      sy_scheme_out out{};
      out.count = &count, out.id = id.data(), out.weight = weight.data();
      sy::Choice choice(in, out, 0);
      scheme.route({in, 0, logits, {}, {}}, choice);
      plugin_random(uint64_t(parameters[1]), in.row, position, 2 * experts, uniform.data());
      noisy_gate_noisy_top_k(logits.data(), uniform.data(), experts, k, parameters, noisy.data(), device_id.data(),
                             device_weight.data());
      ASSERT_EQ(count, k);
      EXPECT_EQ(device_id, id) << experts << " experts, token " << position;
      EXPECT_EQ(device_weight, weight) << experts << " experts, token " << position;
    }
  }
}

}  // namespace
}  // namespace switchyard
