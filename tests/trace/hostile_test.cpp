// Files that want to hurt: each is refused or reported with a message that says what is wrong.
#include <cstring>
#include <fstream>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/stat.h>

#include "tests/trace/synthetic.h"

namespace switchyard::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const SyntheticShape kShape{3, 16, 4, CaptureLevel::kLogits, 100, 50};
constexpr uint64_t kTokens = 250;

// A sound trace that every test copies and damages.
class Hostile : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new Folder;
    record_synthetic(*folder_ / "sound.moetrace.h5", kShape, kTokens);
  }
  static void TearDownTestSuite() { delete folder_; }

  // The copy after `damage` had its way with it.
  static fs::path damaged(const std::function<void(hid_t)>& damage) {
    const fs::path path = *folder_ / "damaged.moetrace.h5";
    fs::copy_file(*folder_ / "sound.moetrace.h5", path, fs::copy_options::overwrite_existing);
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    EXPECT_GE(file, 0);
    damage(file);
    EXPECT_GE(H5Fclose(file), 0);
    return path;
  }
  static void expect_refused(const std::function<void(hid_t)>& damage, const std::string& message, ErrorCode code = ErrorCode::kMalformed) {
    const fs::path path = damaged(damage);
    expect_error(TraceReader::open(path), path, message, code);
    expect_error(verify_trace(path), path, message, code);
    expect_error(recover_trace(path, *folder_ / "out.moetrace.h5", false), path, message, code);
    EXPECT_FALSE(fs::exists(*folder_ / "out.moetrace.h5"));
    EXPECT_FALSE(fs::exists(*folder_ / "out.moetrace.h5.part"));
  }
  template <class T>
  static void expect_error(const Result<T>& result, const fs::path& path, const std::string& message, ErrorCode code) {
    ASSERT_FALSE(result) << "expected: " << message;
    EXPECT_THAT(result.error().message(), HasSubstr(message));
    EXPECT_THAT(result.error().where, HasSubstr(path.filename().string()));
    EXPECT_EQ(result.error().code, code);
  }

  static inline Folder* folder_ = nullptr;
};

void replace(hid_t file, const char* path, hid_t type, const std::vector<hsize_t>& dims, hid_t creation = H5P_DEFAULT) {
  H5Ldelete(file, path, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(int(dims.size()), dims.data(), nullptr);
  const hid_t made = H5Dcreate2(file, path, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  EXPECT_GE(made, 0);
  H5Dclose(made);
  H5Sclose(space);
}

void add(hid_t file, const char* path, hid_t type, const std::vector<hsize_t>& dims, const std::function<void(hid_t)>& configure) {
  const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
  configure(creation);
  const hid_t space = H5Screate_simple(int(dims.size()), dims.data(), nullptr);
  const hid_t made = H5Dcreate2(file, path, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
  EXPECT_GE(made, 0);
  H5Dclose(made);
  H5Sclose(space);
  H5Pclose(creation);
}

void set_attribute(hid_t file, const char* name, uint64_t value) {
  const hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
  EXPECT_GE(H5Awrite(attribute, H5T_NATIVE_UINT64, &value), 0);
  H5Aclose(attribute);
}

// One element of a one-dimensional integer column.
void set_element(hid_t file, const char* path, hsize_t at, int64_t value) {
  const hid_t dataset = H5Dopen2(file, path, H5P_DEFAULT), space = H5Dget_space(dataset);
  const hsize_t one = 1;
  const hid_t memory = H5Screate_simple(1, &one, nullptr);
  H5Sselect_hyperslab(space, H5S_SELECT_SET, &at, nullptr, &one, nullptr);
  EXPECT_GE(H5Dwrite(dataset, H5T_NATIVE_INT64, memory, space, H5P_DEFAULT, &value), 0);
  H5Sclose(memory);
  H5Sclose(space);
  H5Dclose(dataset);
}

TEST_F(Hostile, LinksOutOfTheFileAreRefused) {
  expect_refused([](hid_t file) { H5Lcreate_external("/etc/hostname", "/", file, "/routing/extra", H5P_DEFAULT, H5P_DEFAULT); },
                 "\"/routing/extra\" is refused: it is a link to another file");
  expect_refused([](hid_t file) {
    H5Ldelete(file, "/tokens/phase", H5P_DEFAULT);
    H5Lcreate_external("other.h5", "/tokens/phase", file, "/tokens/phase", H5P_DEFAULT, H5P_DEFAULT);
  }, "\"/tokens/phase\" is refused: it is a link to another file");
  expect_refused([](hid_t file) { H5Lcreate_soft("/tokens", file, "/also_tokens", H5P_DEFAULT, H5P_DEFAULT); },
                 "\"/also_tokens\" is refused: it is a soft or user-defined link");
}

TEST_F(Hostile, LinkLoopsAreRefused) {
  expect_refused([](hid_t file) { H5Lcreate_hard(file, "/", file, "/tokens/loop", H5P_DEFAULT, H5P_DEFAULT); },
                 "\"/tokens/loop\" is refused: it is a second link to the same object");
  expect_refused([](hid_t file) { H5Lcreate_hard(file, "/tokens/phase", file, "/routing/phase", H5P_DEFAULT, H5P_DEFAULT); },
                 "is refused: it is a second link to the same object");
}

TEST_F(Hostile, DataInOtherFilesAreRefused) {
  expect_refused([](hid_t file) {
    add(file, "/routing/extra", H5T_STD_U8LE, {8}, [](hid_t creation) { H5Pset_external(creation, "/etc/hostname", 0, 8); });
  }, "\"/routing/extra\" is refused: its data lie in another file (external storage)");
  // The source of the virtual dataset is a pipe: opening it would hang this test.
  const fs::path pipe = *folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  expect_refused([&](hid_t file) {
    add(file, "/routing/extra", H5T_STD_U8LE, {8}, [&](hid_t creation) {
      const hsize_t size = 8;
      const hid_t space = H5Screate_simple(1, &size, nullptr);
      EXPECT_GE(H5Pset_virtual(creation, space, pipe.c_str(), "/x", space), 0);
      H5Sclose(space);
    });
  }, "\"/routing/extra\" is refused: it is a virtual dataset, made of other files");
}

TEST_F(Hostile, SizesBeyondTheCapsAreRefused) {
  expect_refused([](hid_t file) {
    add(file, "/routing/extra", H5T_IEEE_F64LE, {hsize_t(1) << 38}, [](hid_t creation) {
      const hsize_t chunk = 1024;
      H5Pset_chunk(creation, 1, &chunk);
    });
  }, "\"/routing/extra\" is refused: the file declares more than 1048576 MiB of data");
  expect_refused([](hid_t file) {
    add(file, "/routing/extra", H5T_IEEE_F64LE, {hsize_t(1) << 62, 16}, [](hid_t creation) {
      const hsize_t chunk[2] = {16, 16};
      H5Pset_chunk(creation, 2, chunk);
    });
  }, "the file declares more than");
  expect_refused([](hid_t file) {
    add(file, "/routing/extra", H5T_IEEE_F64LE, {hsize_t(1) << 25}, [](hid_t creation) {
      const hsize_t chunk = hsize_t(1) << 24;
      H5Pset_chunk(creation, 1, &chunk);
    });
  }, "\"/routing/extra\" is refused: a chunk is larger than 64 MiB");
  expect_refused([](hid_t file) {
    std::string path;
    for (int depth = 0; depth < 17; ++depth) {
      path += "/g";
      H5Gclose(H5Gcreate2(file, path.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }
  }, "groups are nested deeper than 16");
  expect_refused([](hid_t file) {
    for (int i = 0; i < 10'001; ++i)
      H5Gclose(H5Gcreate2(file, ("/routing/g" + std::to_string(i)).c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  }, "the file has more than 10000 objects");
}

TEST_F(Hostile, OtherFiltersAndKindsOfObjectsAreRefused) {
  expect_refused([](hid_t file) {
    add(file, "/routing/extra", H5T_STD_I32LE, {64}, [](hid_t creation) {
      const hsize_t chunk = 64;
      H5Pset_chunk(creation, 1, &chunk);
      H5Pset_scaleoffset(creation, H5Z_SO_INT, 8);
    });
  }, "\"/routing/extra\" is refused: it uses filter 6");
  expect_refused([](hid_t file) {
    const hid_t type = H5Tcopy(H5T_STD_I32LE);
    H5Tcommit2(file, "/routing/type", type, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Tclose(type);
  }, "\"/routing/type\" is refused: it is neither a group nor a dataset");
}

TEST_F(Hostile, AnUnknownPlainDatasetIsTolerated) {
  const fs::path path = damaged([](hid_t file) { add(file, "/routing/extra", H5T_IEEE_F32LE, {4}, [](hid_t) {}); });
  const auto reader = TraceReader::open(path);
  ASSERT_TRUE(reader) << reader.error().message();
  EXPECT_EQ(synthetic_difference(**reader, kShape), "");
}

TEST_F(Hostile, WrongTypesAndShapesNameWhatWasFoundAndNeeded) {
  expect_refused([](hid_t file) { replace(file, "/routing/weight", H5T_STD_U32LE, {3, kTokens, 4}); },
                 "/routing/weight holds 32-bit unsigned integers");
  expect_refused([](hid_t file) { replace(file, "/routing/weight", H5T_IEEE_F32BE, {3, kTokens, 4}); }, "/routing/weight holds 32-bit floats");
  expect_refused([](hid_t file) { replace(file, "/routing/expert_id", H5T_STD_U16LE, {3, kTokens, 4}); },
                 "/routing/expert_id holds 16-bit unsigned integers");
  expect_refused([](hid_t file) { replace(file, "/tokens/token_id", H5T_STD_I32LE, {kTokens}); }, "/tokens/token_id holds 32-bit signed integers");
  expect_refused([](hid_t file) { replace(file, "/routing/weight", H5T_IEEE_F32LE, {3, kTokens, 5}); },
                 "/routing/weight has shape [3, 250, 5]; L 3, E 16, k 4 need [3, 250, 4].");
  expect_refused([](hid_t file) { replace(file, "/routing/router_logits", H5T_IEEE_F32LE, {3, kTokens, 32}); },
                 "/routing/router_logits has shape [3, 250, 32]; L 3, E 16, k 4 need [3, 250, 16].");
  expect_refused([](hid_t file) { replace(file, "/routing/entropy", H5T_IEEE_F32LE, {4, kTokens}); },
                 "/routing/entropy has shape [4, 250]; L 3, E 16, k 4 need [3, 250].");
  expect_refused([](hid_t file) { replace(file, "/routing/lse", H5T_IEEE_F32LE, {kTokens}); }, "/routing/lse has shape [250]");
  expect_refused([](hid_t file) { replace(file, "/tokens/phase", H5T_STD_U8LE, {3, kTokens}); }, "/tokens/phase has shape [3, 250]");
  expect_refused([](hid_t file) { replace(file, "/routing/expert_id", H5T_STD_U8LE, {3, kTokens, 3}); },
                 "/routing/expert_id has 3 slots; k is 4, E is 16.");
  expect_refused([](hid_t file) { replace(file, "/commit/crc32c", H5T_STD_U32LE, {1, 3}); }, "/commit/crc32c has shape [1, 3]");
  expect_refused([](hid_t file) { replace(file, "/model/moe_layers", H5T_STD_I32LE, {5}); }, "/model/moe_layers has 5 rows, L is 3.");
  expect_refused([](hid_t file) { replace(file, "/meta/run", H5T_STD_I32LE, {5}); }, "/meta/run is not one variable-length string.");
  expect_refused([](hid_t file) { replace(file, "/commit/tokens", H5T_IEEE_F32LE, {1}); }, "/commit/tokens is not a column of integers.");
}

TEST_F(Hostile, MissingDatasetsAreNamed) {
  for (const char* path : {"/tokens/token_id", "/tokens/position", "/tokens/phase", "/tokens/recipe_epoch", "/routing/expert_id",
                           "/routing/weight", "/routing/slot_kind", "/routing/entropy", "/routing/lse", "/commit/tokens", "/commit/block",
                           "/commit/slots", "/commit/crc32c", "/sequences/offset", "/sequences/prompt_len", "/model/moe_layers",
                           "/meta/model_config", "/meta/edits"}) {
    SCOPED_TRACE(path);
    expect_refused([&](hid_t file) { H5Ldelete(file, path, H5P_DEFAULT); }, std::string("has no ") + path + ".");
  }
  expect_refused([](hid_t file) { H5Ldelete(file, "/commit", H5P_DEFAULT); }, "has no /commit/tokens.");
}

TEST_F(Hostile, AttributesThatCannotBeAreRefused) {
  expect_refused([](hid_t file) { H5Adelete(file, "schema"); }, "is an HDF5 file, but not a routing trace");
  expect_refused([](hid_t file) { set_attribute(file, "schema_version", 2); }, "has schema version 2; this program reads up to 1.");
  expect_refused([](hid_t file) { set_attribute(file, "L", 0); }, "has L = 0 routing rows");
  expect_refused([](hid_t file) { set_attribute(file, "L", 4'000'000'000); }, "has L = 4000000000 routing rows");
  expect_refused([](hid_t file) { set_attribute(file, "E", 70'000); }, "has E = 70000 experts; 1 to 65,535 are read.");
  expect_refused([](hid_t file) { set_attribute(file, "E", 17); }, "E 17");
  expect_refused([](hid_t file) { set_attribute(file, "k", 17); }, "has k = 17 experts per token of E = 16.");
  expect_refused([](hid_t file) { set_attribute(file, "L", 2); }, "/model/moe_layers has 3 rows, L is 2.");
  expect_refused([](hid_t file) { H5Adelete(file, "complete"); }, "has no attribute \"complete\".");
}

TEST_F(Hostile, BookkeepingThatContradictsItselfIsRefused) {
  expect_refused([](hid_t file) { set_element(file, "/commit/block", 0, 7); }, "/commit row 0 does not follow the row before it.");
  expect_refused([](hid_t file) { set_element(file, "/commit/tokens", 0, 5000); }, "/commit row 0 does not follow");
  expect_refused([](hid_t file) { set_element(file, "/commit/slots", 0, 5); }, "/commit row 0 does not follow");
  expect_refused([](hid_t file) { set_element(file, "/sequences/offset", 1, -1); }, "/sequences/offset row 1 is -1.");
  expect_refused([](hid_t file) { set_element(file, "/sequences/offset", 2, 9000); }, "/sequences/offset row 2 lies behind the last token.");
  const fs::path path = damaged([](hid_t file) { set_element(file, "/epochs/offset", 2, 1 << 30); });
  expect_error((*TraceReader::open(path))->epochs(), path, "/epochs/offset row 2 does not fit /epochs/json.", ErrorCode::kMalformed);
}

// The ids were changed and the checksum with them (a writer's bug, not damage): the reader still refuses the values.
TEST_F(Hostile, ExpertsThatTheModelDoesNotHaveAreNamedWithTheirToken) {
  const fs::path path = damaged([](hid_t file) {
    const hid_t dataset = H5Dopen2(file, "/routing/expert_id", H5P_DEFAULT), space = H5Dget_space(dataset);
    const hsize_t at[3] = {1, 200, 2}, one[3] = {1, 1, 1};
    const hid_t memory = H5Screate_simple(3, one, nullptr);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, at, nullptr, one, nullptr);
    const uint8_t id = 16;
    EXPECT_GE(H5Dwrite(dataset, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, &id), 0);
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(dataset);
  });
  const auto reader = TraceReader::open(path);
  ASSERT_TRUE(reader);
  EXPECT_TRUE((*reader)->expert_ids(1, 0, 200));
  expect_error((*reader)->expert_ids(1, 150, 100), path, "/routing/expert_id names expert 16 of 16 at row 1, token 200.", ErrorCode::kMalformed);
  const auto report = verify_trace(path);
  ASSERT_TRUE(report);
  EXPECT_THAT(report->problems, ::testing::ElementsAre(HasSubstr("the checksum of /routing/expert_id does not match")));
}

// One flipped bit on disk in each recorded dataset.
TEST_F(Hostile, EveryFlippedBitIsFoundByVerifyAndLeftOutByRecover) {
  for (const char* path : {"/tokens/token_id", "/tokens/position", "/tokens/phase", "/tokens/recipe_epoch", "/routing/expert_id", "/routing/weight",
                           "/routing/slot_kind", "/routing/entropy", "/routing/topk_mass", "/routing/margin", "/routing/lse", "/routing/router_logits"}) {
    SCOPED_TRACE(path);
    haddr_t address = 0;
    const fs::path file_path = damaged([&](hid_t file) {
      const hid_t dataset = H5Dopen2(file, path, H5P_DEFAULT);
      unsigned filters = 0;
      hsize_t size = 0;
      const hsize_t origin[3] = {0, 0, 0};
      EXPECT_GE(H5Dget_chunk_info_by_coord(dataset, origin, &filters, &address, &size), 0);
      H5Dclose(dataset);
    });
    std::fstream bytes(file_path, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekg(std::streamoff(address));
    const char flipped = static_cast<char>(bytes.get() ^ 4);
    bytes.seekp(std::streamoff(address));
    bytes.put(flipped);
    bytes.close();
    const auto report = verify_trace(file_path);
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_THAT(report->problems, ::testing::ElementsAre(
        HasSubstr("tokens 0 to 249: the checksum of " + std::string(path) + " does not match")));
    const auto recovered = recover_trace(file_path, *folder_ / "out.moetrace.h5", true);
    ASSERT_TRUE(recovered) << recovered.error().message();
    EXPECT_EQ(recovered->info.tokens, 0u);
    EXPECT_THAT(recovered->problems, ::testing::ElementsAre(HasSubstr("tokens 0 to 249 of the source are left out")));
  }
}

// What the commit rows do not cover, and the sums.
TEST_F(Hostile, ChangedBookkeepingAndSumsAreFoundByVerify) {
  const auto problems = [](const std::function<void(hid_t)>& damage) {
    const auto report = verify_trace(damaged(damage));
    EXPECT_TRUE(report);
    return report ? report->problems : std::vector<std::string>{};
  };
  const std::string bookkeeping = "the checksum of /meta, /model, /sequences and /epochs does not match";
  EXPECT_THAT(problems([](hid_t) {}), ::testing::IsEmpty());
  EXPECT_THAT(problems([](hid_t file) { set_element(file, "/sequences/offset", 1, 99); }), ::testing::Contains(bookkeeping));
  EXPECT_THAT(problems([](hid_t file) { set_element(file, "/sequences/parent", 2, 0); }), ::testing::ElementsAre(bookkeeping));
  EXPECT_THAT(problems([](hid_t file) { set_element(file, "/epochs/first_token", 1, 49); }), ::testing::ElementsAre(bookkeeping));
  EXPECT_THAT(problems([](hid_t file) { set_element(file, "/epochs/json", 30, 'x'); }), ::testing::ElementsAre(bookkeeping));
  EXPECT_THAT(problems([](hid_t file) { set_element(file, "/model/moe_layers", 2, 6); }), ::testing::ElementsAre(bookkeeping));
  EXPECT_THAT(problems([](hid_t file) { set_attribute(file, "n_tokens", 249); }), ::testing::ElementsAre("n_tokens says 249, 250 are committed"));
  for (const char* path : {"/agg/count", "/agg/count_top1", "/agg/prob_sum", "/agg/coact", "/agg/trans_top1", "/agg/trans_topk", "/agg/srp_hist_m4", "/agg/srp_hist_m16"}) {
    const auto zero = [&](hid_t file) {
      const hid_t dataset = H5Dopen2(file, path, H5P_DEFAULT);
      const std::vector<double> zeros(2000);
      EXPECT_GE(H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros.data()), 0);
      H5Dclose(dataset);
    };
    EXPECT_THAT(problems(zero), ::testing::ElementsAre(std::string(path) + " does not match the rows"));
  }
  // Files of the first versions have fewer sums; the first ones all have.
  EXPECT_THAT(problems([](hid_t file) { H5Ldelete(file, "/agg/srp_hist_m4", H5P_DEFAULT), H5Ldelete(file, "/agg/vocab/id", H5P_DEFAULT); }), ::testing::IsEmpty());
  EXPECT_THAT(problems([](hid_t file) { H5Ldelete(file, "/agg/count", H5P_DEFAULT); }), ::testing::SizeIs(1));
}

// Only the damaged block is lost: 4,096 tokens of three blocks.
TEST_F(Hostile, RecoverKeepsTheBlocksBesideADamagedOne) {
  const SyntheticShape shape{2, 16, 4, CaptureLevel::kIds, 1000, 300};
  const fs::path path = *folder_ / "long.moetrace.h5";
  RecorderOptions options;
  options.flush_seconds = 0;
  record_synthetic(path, shape, 9000, options);
  {
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    set_element(file, "/tokens/token_id", 4100, 1);
    H5Fclose(file);
  }
  const auto recovered = recover_trace(path, *folder_ / "saved.moetrace.h5", true);
  ASSERT_TRUE(recovered) << recovered.error().message();
  ASSERT_THAT(recovered->problems, ::testing::SizeIs(1));
  EXPECT_THAT(recovered->problems[0], HasSubstr("tokens 4096 to "));
  const auto reader = TraceReader::open(*folder_ / "saved.moetrace.h5");
  ASSERT_TRUE(reader);
  EXPECT_TRUE((*reader)->info().complete);
  EXPECT_EQ((*reader)->info().sequences, 9u);
  const auto position = (*reader)->token_column("position", 0, (*reader)->info().tokens);
  const auto offsets = (*reader)->sequence_offsets();
  ASSERT_TRUE(position && offsets);
  EXPECT_EQ((*position)[4095], 95u);
  EXPECT_EQ((*offsets)[4], 4000);
  for (size_t s = 6; s + 1 < offsets->size(); ++s) EXPECT_EQ((*position)[(*offsets)[s]], (*offsets)[s] == (*offsets)[s - 1] ? (*position)[(*offsets)[s - 1]] : 0u);
  EXPECT_EQ(position->back(), 999u);
}

TEST_F(Hostile, FilesThatAreNotHdf5AreRefused) {
  const auto write = [&](const char* name, const std::string& bytes) {
    std::ofstream(*folder_ / name, std::ios::binary) << bytes;
    return *folder_ / name;
  };
  expect_error(TraceReader::open(*folder_ / "absent.moetrace.h5"), "absent.moetrace.h5", "could not be opened: No such file or directory.", ErrorCode::kNotFound);
  expect_error(TraceReader::open(folder_->path()), folder_->path(), "is not a regular file.", ErrorCode::kNotFound);
  expect_error(TraceReader::open(write("empty.moetrace.h5", "")), "empty.moetrace.h5", "is not an HDF5 file (0 bytes).", ErrorCode::kMalformed);
  expect_error(TraceReader::open(write("text.moetrace.h5", "{\"schema\": 1}")), "text.moetrace.h5", "is not an HDF5 file", ErrorCode::kMalformed);
  expect_error(TraceReader::open(write("magic.moetrace.h5", "\x89HDF\r\n\x1a\n")), "magic.moetrace.h5", "is damaged: HDF5 says", ErrorCode::kMalformed);
  expect_error(TraceReader::open("/dev/null"), "/dev/null", "is not a regular file.", ErrorCode::kNotFound);
}

TEST_F(Hostile, ATruncatedFileIsRefusedAtEveryLength) {
  const fs::path sound = *folder_ / "sound.moetrace.h5", cut = *folder_ / "cut.moetrace.h5";
  const uint64_t size = fs::file_size(sound);
  for (int part = 0; part < 40; ++part) {
    fs::copy_file(sound, cut, fs::copy_options::overwrite_existing);
    fs::resize_file(cut, size * part / 40);
    const auto reader = TraceReader::open(cut);
    ASSERT_FALSE(reader) << "cut to " << size * part / 40 << " of " << size << " bytes";
    EXPECT_EQ(reader.error().code, ErrorCode::kMalformed);
  }
}

// The free space of a heap of texts, said to be 0 bytes long: libhdf5 1.10 walks the heap and never gets past it.
TEST_F(Hostile, AFileInWhichTheLibraryNeverEndsIsRefusedInTime) {
  std::ifstream in(*folder_ / "sound.moetrace.h5", std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  int heaps = 0;
  for (size_t heap = bytes.find("GCOL"); heap != std::string::npos; heap = bytes.find("GCOL", heap + 4), ++heaps) {
    const auto number = [&](size_t at, size_t size) {
      uint64_t value = 0;
      std::memcpy(&value, bytes.data() + at, size);
      return value;
    };
    size_t object = heap + 16;  // each: index (2 bytes), references (2), 4 unused, size (8), then the data, padded to 8
    while (number(object, 2) != 0) object += 16 + (number(object + 8, 8) + 7) / 8 * 8;
    std::memset(bytes.data() + object + 8, 0, 8);
  }
  ASSERT_GT(heaps, 0);
  const fs::path path = *folder_ / "endless.moetrace.h5";
  std::ofstream(path, std::ios::binary) << bytes;
  expect_error(TraceReader::open(path), path, "is damaged: the HDF5 library reads and reads in it, without end.", ErrorCode::kMalformed);
}

TEST_F(Hostile, RecoverNeverWritesOverItsSourceOrAnExistingFile) {
  const fs::path sound = *folder_ / "sound.moetrace.h5";
  EXPECT_EQ(recover_trace(sound, sound, true).error().code, ErrorCode::kUsage);
  std::ofstream(*folder_ / "there.moetrace.h5") << "precious";
  EXPECT_EQ(recover_trace(sound, *folder_ / "there.moetrace.h5", false).error().code, ErrorCode::kOutput);
  EXPECT_EQ(fs::file_size(*folder_ / "there.moetrace.h5"), 8u);
}

}  // namespace
}  // namespace switchyard::testing
