// Builds the exemplar bank of the sdm scheme (specs/gating.md 1.5): inputs of every router with the expert that it
// chose first, and the distances of calibration points to them. Streaming; keeps a seeded sample per router. No files.
// Used by `calibrate bank`.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/model/plan.h"
#include "engine/routing/scheme.h"

namespace switchyard {

// What is right for an input: the expert that its own router chose, or the one that its domain chooses most often.
enum class BankLabels : uint8_t { kOwn, kDomain };

struct BankRow {
  int exemplars = 0, points = 0;         // kept: exemplars; calibration points with q > 0
  int left_out = 0;                      // calibration points with q = 0
  int classes = 0, classes_dropped = 0;  // dropped with their exemplars: no calibration point speaks for them
};
struct BuiltBank {
  SchemeFile file;
  std::vector<BankRow> rows;
};

class SdmBankBuilder {
 public:
  // most: exemplars of a router, and calibration points; from 1.
  SdmBankBuilder(const ModelPlan& plan, int most, BankLabels labels, uint64_t seed);

  // One token at one router. prediction: its first choice. calibrates: it is a calibration point, else an exemplar.
  void add(int row, std::span<const float> input, ExpertId prediction, int domain, bool calibrates);

  // kUsage: a router is left without an exemplar; two routers in a layer.
  Result<BuiltBank> build() const;

 private:
  struct Point {
    std::vector<float> input;
    ExpertId prediction = 0;
    int domain = 0;
  };
  struct Sample {
    std::vector<Point> points;
    uint64_t seen = 0;
  };
  struct Row {
    Sample exemplars, calibration;
    std::map<int, std::vector<uint64_t>> chosen;  // by domain: times that each expert came first
  };
  void keep(Sample& sample, Point point);
  ExpertId label(const Row& row, const Point& point) const;
  SdmBank bank_of(const Row& row, BankRow& facts) const;

  const ModelPlan& plan_;
  const size_t most_;
  const BankLabels labels_;
  std::mt19937_64 random_;
  std::vector<Row> rows_;
};

}  // namespace switchyard
