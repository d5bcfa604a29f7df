// Arrow's Parquet writer behind the plain C of parquet_module.h.
#include "engine/trace/export/parquet_module.h"

#include <memory>
#include <string>

#include <arrow/array/array_primitive.h>
#include <arrow/array/builder_binary.h>
#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>
#include <arrow/table.h>
#include <arrow/type.h>
#include <parquet/arrow/writer.h>

namespace switchyard {
namespace {

class SinkStream final : public arrow::io::OutputStream {
 public:
  explicit SinkStream(ParquetSink sink) : sink_(sink) { set_mode(arrow::io::FileMode::WRITE); }
  arrow::Status Write(const void* data, int64_t bytes) override {
    if (const char* problem = sink_.write(sink_.context, data, bytes)) return arrow::Status::IOError(problem);
    written_ += bytes;
    return arrow::Status::OK();
  }
  arrow::Status Close() override {
    closed_ = true;
    return arrow::Status::OK();
  }
  bool closed() const override { return closed_; }
  arrow::Result<int64_t> Tell() const override { return written_; }

 private:
  ParquetSink sink_;
  int64_t written_ = 0;
  bool closed_ = false;
};

struct Writer {
  std::shared_ptr<arrow::Schema> schema;
  std::shared_ptr<SinkStream> stream;
  std::unique_ptr<parquet::arrow::FileWriter> parquet;
};

const char* kept(const arrow::Status& status) {
  static std::string text;
  if (status.ok()) return nullptr;
  text = status.message();
  return text.c_str();
}

std::shared_ptr<arrow::DataType> type_of(ParquetType type) {
  switch (type) {
    case kParquetInt32: return arrow::int32();
    case kParquetInt64: return arrow::int64();
    case kParquetFloat: return arrow::float32();
    case kParquetDouble: return arrow::float64();
    case kParquetText: return arrow::utf8();
  }
  return arrow::null();
}

arrow::Result<std::shared_ptr<arrow::Array>> array_of(const ParquetColumn& column, int64_t rows) {
  if (column.type == kParquetText) {
    arrow::StringBuilder builder;
    for (int64_t i = 0; i < rows; ++i) ARROW_RETURN_NOT_OK(builder.Append(static_cast<const char* const*>(column.values)[i]));
    return builder.Finish();
  }
  const auto buffer = std::make_shared<arrow::Buffer>(static_cast<const uint8_t*>(column.values), rows * (column.type == kParquetInt64 || column.type == kParquetDouble ? 8 : 4));
  if (column.type == kParquetInt32) return std::make_shared<arrow::Int32Array>(rows, buffer);
  if (column.type == kParquetInt64) return std::make_shared<arrow::Int64Array>(rows, buffer);
  if (column.type == kParquetDouble) return std::make_shared<arrow::DoubleArray>(rows, buffer);
  return std::make_shared<arrow::FloatArray>(rows, buffer);
}

arrow::Status open_writer(ParquetSink sink, const ParquetColumn* columns, int count, void** out) {
  auto writer = std::make_unique<Writer>();
  arrow::FieldVector fields;
  for (int i = 0; i < count; ++i) fields.push_back(arrow::field(columns[i].name, type_of(columns[i].type), false));
  writer->schema = arrow::schema(fields);
  writer->stream = std::make_shared<SinkStream>(sink);
  const auto properties = parquet::WriterProperties::Builder().compression(parquet::Compression::ZSTD)->build();
  ARROW_ASSIGN_OR_RAISE(writer->parquet, parquet::arrow::FileWriter::Open(*writer->schema, arrow::default_memory_pool(), writer->stream, properties));
  *out = writer.release();
  return arrow::Status::OK();
}

arrow::Status write_rows(Writer& writer, const ParquetColumn* columns, int count, int64_t rows) {
  arrow::ArrayVector arrays;
  for (int i = 0; i < count; ++i) {
    ARROW_ASSIGN_OR_RAISE(auto array, array_of(columns[i], rows));
    arrays.push_back(std::move(array));
  }
  return writer.parquet->WriteTable(*arrow::Table::Make(writer.schema, arrays, rows), rows);
}

const char* open(ParquetSink sink, const ParquetColumn* columns, int count, void** writer) { return kept(open_writer(sink, columns, count, writer)); }

const char* write(void* writer, const ParquetColumn* columns, int count, int64_t rows) {
  return rows == 0 ? nullptr : kept(write_rows(*static_cast<Writer*>(writer), columns, count, rows));
}

const char* close(void* opened) {
  const std::unique_ptr<Writer> writer(static_cast<Writer*>(opened));
  return kept(writer->parquet->Close());
}

constexpr ParquetModule kModule{open, write, close};

}  // namespace

extern "C" [[gnu::visibility("default")]] const ParquetModule* switchyard_parquet_module() { return &kModule; }

}  // namespace switchyard
