// The extra weights of a gating scheme: one safetensors file (specs/gating.md section 2, "Extra weights"). Any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/routing/scheme.h"

namespace switchyard {

// Reads every tensor of the file; a name without a folder that is not there is looked for among the shipped examples.
// table and table.{layer} [V] or [V, columns] I32; layers.{layer}.gate.proto [E, d] and
// .gate.null.weight [m, d];
// threshold and threshold.{layer} [E]; [layers.{layer}.]gate.similarity [d, d]; layers.{layer}.rmoe.w1 [p, d] and .w2 [E, p], rmoe.gru.{ir,hr,iz,hz,in,hn}.weight
// [p, p] and .bias [p]; layers.{layer}.coe.{pass}.weight [E, d], passes from 0; layers.{layer}.uoe.weight [slices, d] and .bias [slices];
// layers.{layer}.sdm.exemplars [N, d], .labels and .predictions [N] I32, .distances [M] and .classes
// [M] I32; F32 but for those. Anything else is refused by name. kNotFound, kMalformed.
Result<std::shared_ptr<const SchemeFile>> read_scheme_file(const std::string& path);

// The shipped files of seeded weights for the demo (assets/schemes), by name; those of one scheme carry its name.
std::vector<std::string> scheme_examples();
std::string example_of(std::string_view scheme);  // empty: there is none

// The bytes of such a file; what `read_scheme_file` reads back.
std::string scheme_file_bytes(const SchemeFile& file);

// Traces lie in a room that this one does not see: who reads them registers how, once, before threads start
// (read_schemes_from_traces() in engine/trace/replay.h). Without it a replay is refused.
using RoutesReader = Result<std::shared_ptr<const SchemeFile>> (*)(const std::string& trace, int sequence);
void set_routes_reader(RoutesReader reader);
Result<std::shared_ptr<const SchemeFile>> read_recorded_routes(const std::string& trace, int sequence);

}  // namespace switchyard
