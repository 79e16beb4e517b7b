package pgcdc

// builtin is a type that every server has, under an OID that never changes.
type builtin struct {
	oid, array uint32 // array is 0 where there is no array type
	name       string
	kind       kind
}

// builtins are the base, range and multirange types of pg_catalog that have fixed OIDs (pg_type.dat). What a server
// has beside them is asked of it.
var builtins = []builtin{
	{16, 1000, "bool", kindBool},
	{17, 1001, "bytea", kindText},
	{18, 1002, "char", kindText},
	{19, 1003, "name", kindText},
	{20, 1016, "int8", kindNumber},
	{21, 1005, "int2", kindNumber},
	{22, 1006, "int2vector", kindVector},
	{23, 1007, "int4", kindNumber},
	{24, 1008, "regproc", kindText},
	{25, 1009, "text", kindText},
	{26, 1028, "oid", kindText},
	{27, 1010, "tid", kindText},
	{28, 1011, "xid", kindText},
	{29, 1012, "cid", kindText},
	{30, 1013, "oidvector", kindVector},
	{114, 199, "json", kindJSON},
	{142, 143, "xml", kindText},
	{194, 0, "pg_node_tree", kindText},
	{600, 1017, "point", kindText},
	{601, 1018, "lseg", kindText},
	{602, 1019, "path", kindText},
	{603, 1020, "box", kindText},
	{604, 1027, "polygon", kindText},
	{628, 629, "line", kindText},
	{650, 651, "cidr", kindText},
	{700, 1021, "float4", kindNumber},
	{701, 1022, "float8", kindNumber},
	{718, 719, "circle", kindText},
	{774, 775, "macaddr8", kindText},
	{790, 791, "money", kindText},
	{829, 1040, "macaddr", kindText},
	{869, 1041, "inet", kindText},
	{1033, 1034, "aclitem", kindText},
	{1042, 1014, "bpchar", kindText},
	{1043, 1015, "varchar", kindText},
	{1082, 1182, "date", kindDate},
	{1083, 1183, "time", kindText},
	{1114, 1115, "timestamp", kindTimestamp},
	{1184, 1185, "timestamptz", kindTimestamptz},
	{1186, 1187, "interval", kindText},
	{1266, 1270, "timetz", kindText},
	{1560, 1561, "bit", kindText},
	{1562, 1563, "varbit", kindText},
	{1700, 1231, "numeric", kindNumber},
	{1790, 2201, "refcursor", kindText},
	{2202, 2207, "regprocedure", kindText},
	{2203, 2208, "regoper", kindText},
	{2204, 2209, "regoperator", kindText},
	{2205, 2210, "regclass", kindText},
	{2206, 2211, "regtype", kindText},
	{2950, 2951, "uuid", kindText},
	{2970, 2949, "txid_snapshot", kindText},
	{3220, 3221, "pg_lsn", kindText},
	{3361, 0, "pg_ndistinct", kindText},
	{3402, 0, "pg_dependencies", kindText},
	{3614, 3643, "tsvector", kindText},
	{3615, 3645, "tsquery", kindText},
	{3642, 3644, "gtsvector", kindText},
	{3734, 3735, "regconfig", kindText},
	{3769, 3770, "regdictionary", kindText},
	{3802, 3807, "jsonb", kindJSON},
	{3904, 3905, "int4range", kindText},
	{3906, 3907, "numrange", kindText},
	{3908, 3909, "tsrange", kindText},
	{3910, 3911, "tstzrange", kindText},
	{3912, 3913, "daterange", kindText},
	{3926, 3927, "int8range", kindText},
	{4072, 4073, "jsonpath", kindText},
	{4089, 4090, "regnamespace", kindText},
	{4096, 4097, "regrole", kindText},
	{4191, 4192, "regcollation", kindText},
	{4451, 6150, "int4multirange", kindText},
	{4532, 6151, "nummultirange", kindText},
	{4533, 6152, "tsmultirange", kindText},
	{4534, 6153, "tstzmultirange", kindText},
	{4535, 6155, "datemultirange", kindText},
	{4536, 6157, "int8multirange", kindText},
	{4600, 0, "pg_brin_bloom_summary", kindText},
	{4601, 0, "pg_brin_minmax_multi_summary", kindText},
	{5017, 0, "pg_mcv_list", kindText},
	{5038, 5039, "pg_snapshot", kindText},
	{5069, 271, "xid8", kindText},
}

// builtinTypes are builtins and their arrays by OID.
var builtinTypes = makeBuiltinTypes()

func makeBuiltinTypes() map[uint32]*Type {
	const box, boxDelimiter = 603, ';'
	vectors := map[uint32]uint32{22: 21, 30: 26} // int2vector and oidvector, of int2 and oid
	types := make(map[uint32]*Type, 2*len(builtins))
	for _, b := range builtins {
		types[b.oid] = &Type{OID: b.oid, Name: b.name, kind: b.kind}
	}
	for _, b := range builtins {
		t := types[b.oid]
		if elem, ok := vectors[b.oid]; ok {
			t.elem = types[elem]
		}
		if b.array == 0 {
			continue
		}
		array := &Type{OID: b.array, Name: "_" + b.name, kind: kindArray, elem: t, delim: ','}
		if b.oid == box {
			array.delim = boxDelimiter
		}
		types[b.array] = array
	}
	return types
}
