// ExFlow traces: an npy array of first choices, [tokens, MoE layers] (formats.md F7).
#include <algorithm>
#include <memory>

#include "engine/trace/import/dump.h"
#include "engine/trace/import/numbers.h"
#include "engine/trace/import/source.h"

namespace switchyard::dumps {

bool recognises_exflow(const DumpSource& source) {
  if (source.is_folder() || !source.names().front().ends_with(".npy")) return false;
  const auto file = source.file(source.names().front());
  if (!file) return false;
  const std::string start = source.start_of(source.names().front(), 128);
  const size_t shape = start.find("'shape': (");
  return shape != std::string::npos && std::count(start.begin() + ptrdiff_t(shape), start.begin() + ptrdiff_t(std::min(start.find(')', shape), start.size())), ',') == 1;
}

Result<void> read_exflow(const DumpSource& source, const ImportOptions&, DumpSink& sink) {
  if (source.is_folder()) return fail(ErrorCode::kUsage, "is a folder; the trace is one npy file.", source.shown());
  SY_TRY(OpenFile opened, source.file(source.names().front()));
  SY_TRY(const DumpTensor array, open_npy(std::make_shared<const OpenFile>(std::move(opened))));
  if (array.shape.size() != 2) return array.fail("has " + std::to_string(array.shape.size()) + " axes, needs [tokens, MoE layers].", "An array [tokens, layers, k] is read with --from vllm.");
  sink.facts.ranked = true;  // the only one there is
  sink.facts.ordinal_layers = true;
  sink.facts.note("holds the first choice of each token only, and does not say where sequences begin: it is taken as one");
  SY_CHECK(sink.begin_sequence(0));
  constexpr int64_t kPiece = 65'536;
  for (int64_t first = 0; first < array.shape[0]; first += kPiece) {
    SY_TRY(const Numbers rows, array.read(first, std::min(kPiece, array.shape[0] - first)));
    SY_TRY(const DumpTokens piece, tokens_of(rows, 0, 1, -1, array.where));
    SY_CHECK(sink.tokens(piece));
    sink.progress(double(first) / double(array.shape[0]));
  }
  return {};
}

}  // namespace switchyard::dumps
